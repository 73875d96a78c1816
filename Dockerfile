# CPU:   docker build -t tabi-bench .
# CUDA:  docker build -t tabi-bench --build-arg TORCH=cu128 .      then: docker run --gpus all ...
FROM python:3.11-slim
ARG TORCH=cpu
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev git && rm -rf /var/lib/apt/lists/*
WORKDIR /tabi-bench
COPY requirements.txt .
RUN pip install --no-cache-dir "$(grep '^torch==' requirements.txt)" --index-url https://download.pytorch.org/whl/${TORCH} \
 && grep -v "^torch==" requirements.txt > rest.txt && pip install --no-cache-dir -r rest.txt && rm rest.txt
COPY . .
RUN pip install --no-cache-dir --no-deps --no-build-isolation .
ENTRYPOINT ["tabi-bench"]
CMD ["task=mnli", "method=tabi"]
