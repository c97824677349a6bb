# A worker of the pool semivl-gpu. The SEMIVL_... settings and PREFECT_API_URL come from the environment, the
# S3 keys too or from the machine's role; nothing secret is in the image. infra/README.md shows how to run it.
FROM nvidia/cuda:13.0.1-base-ubuntu24.04 AS base
ENV PYTHONUNBUFFERED=1 DO_NOT_TRACK=1

FROM base AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /semivl
COPY requirements.lock ./
RUN python3 -m venv .venv \
    && .venv/bin/pip install --no-cache-dir "$(grep -oE -m1 '^uv==[0-9.]+' requirements.lock)" \
    && .venv/bin/uv pip install --no-cache --python .venv/bin/python --compile-bytecode --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE prefect.yaml ./
COPY conf conf
COPY flows flows
COPY semivl semivl
RUN .venv/bin/uv pip install --no-cache --python .venv/bin/python --no-build-isolation --no-deps -e .

FROM base
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 worker \
    && install -d -o worker /data
COPY --from=build /semivl /semivl
WORKDIR /semivl
ENV PATH=/semivl/.venv/bin:$PATH \
    SEMIVL_HOME=/data \
    SEMIVL_ROOT=/semivl \
    MLFLOW_DISABLE_TELEMETRY=true \
    MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false \
    PREFECT_SERVER_ALLOW_EPHEMERAL_MODE=false
VOLUME /data
USER 10001
CMD ["prefect", "worker", "start", "--pool", "semivl-gpu", "--type", "process", "--limit", "1", "--install-policy", "never"]
