"""How queries arrive: load generators that know neither models nor labels."""
