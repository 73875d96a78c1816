"""An exported plan of two levels on Ray Serve: `pip install "tabi-bench[serve]"`, then

    python examples/serve_ray.py my_plan            # answers POST http://127.0.0.1:8000 with {"texts": ["..."]}

Each level is a deployment with replicas and batches of its own. On several hosts: start Ray on each (`ray start`),
put the plan's folder in the same place on all, raise num_replicas; a level that needs a GPU takes num_gpus.
"""

import sys

from ray import serve

from tabi_bench import load
from tabi_bench.system import Item

SMALL = {"num_replicas": 1, "ray_actor_options": {"num_cpus": 0.3}}
LARGE = {"num_replicas": 1, "ray_actor_options": {"num_cpus": 0.3}}


@serve.deployment(**LARGE)
class Large:
    def __init__(self, plan: str) -> None:
        self.classify = load(plan)

    @serve.batch(max_batch_size=16, batch_wait_timeout_s=0.002)
    async def __call__(self, items: list[Item]) -> list[Item]:
        self.classify.system.run(1, items)
        return items


@serve.deployment(**SMALL)
class Small:
    def __init__(self, plan: str, large: serve.handle.DeploymentHandle) -> None:
        self.classify, self.large = load(plan), large

    @serve.batch(max_batch_size=16, batch_wait_timeout_s=0.002)
    async def first(self, texts: list) -> list[tuple[Item, bool]]:
        items = [Item(query) for query in self.classify.queries(texts)]
        return [(item, result is item) for item, result in zip(items, self.classify.system.run(0, items), strict=True)]

    async def __call__(self, request) -> dict:
        texts = tuple((await request.json())["texts"])
        item, unsure = await self.first(texts)
        if unsure:
            item = await self.large.remote(item)
        prediction = self.classify.prediction(item)
        return {
            "answer": prediction.label or prediction.score,
            "confidence": prediction.confidence,
            "level": prediction.level,
        }


def app(plan: str) -> serve.Application:
    return Small.bind(plan, Large.bind(plan))


if __name__ == "__main__":
    serve.run(app(sys.argv[1]), blocking=True)
