from tabi_bench.cli import main

main()
