# CPU:   docker build -t tabi-bench .
# CUDA:  docker build -t tabi-bench --build-arg TORCH_INDEX= .      then: docker run --gpus all ...
# (the package index's own torch for Linux comes with CUDA)
FROM python:3.11-slim
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev git && rm -rf /var/lib/apt/lists/*
WORKDIR /tabi-bench
COPY requirements.txt .
RUN pip install --no-cache-dir ${TORCH_INDEX:+--index-url $TORCH_INDEX} "$(grep '^torch==' requirements.txt)" \
 && pip install --no-cache-dir -r requirements.txt
COPY . .
RUN pip install --no-cache-dir --no-deps --no-build-isolation .
ENTRYPOINT ["tabi-bench"]
CMD ["task=mnli", "method=tabi"]
