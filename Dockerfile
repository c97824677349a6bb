# The images of a team, a target each; infra/README.md shows how to build and run them. Nothing secret is in them:
# addresses and keys come from the environment. Every one runs as user 10001 on a root that may be read-only.
#   worker   a worker of a pool, with torch and the flows: writes to /data and /tmp
#   server   Prefect's and MLflow's servers, and the worker that starts Kubernetes jobs: writes to /tmp
#   s3       SeaweedFS' one program: writes to /data and /tmp
#   proxy    Caddy: writes to /data and /tmp
FROM nvidia/cuda:13.0.1-base-ubuntu24.04 AS gpu

FROM ubuntu:24.04 AS python
ENV PYTHONUNBUFFERED=1 DO_NOT_TRACK=1
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*

FROM python AS build-server
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /server
COPY requirements.lock infra/server.lock ./
RUN python3 -m venv .venv \
    && .venv/bin/pip install --no-cache-dir "$(grep -oE -m1 '^uv==[0-9.]+' requirements.lock)" \
    && .venv/bin/uv pip install --no-cache --python .venv/bin/python --compile-bytecode --require-hashes -r server.lock

FROM python AS server
RUN useradd --uid 10001 --no-create-home server
COPY --from=build-server /server/.venv /server/.venv
ENV PATH=/server/.venv/bin:$PATH \
    HOME=/tmp \
    PREFECT_HOME=/tmp/prefect \
    MLFLOW_DISABLE_TELEMETRY=true \
    MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false \
    PREFECT_SERVER_ANALYTICS_ENABLED=false
WORKDIR /tmp
USER 10001

FROM alpine:3.22 AS s3
COPY --from=chrislusf/seaweedfs:4.48 /usr/bin/weed /usr/bin/weed
RUN adduser -D -H -u 10001 weed && install -d -o weed -g weed /data
VOLUME /data
USER 10001
ENTRYPOINT ["/usr/bin/weed"]

FROM alpine:3.22 AS proxy
COPY --from=caddy:2.11.7-alpine /usr/bin/caddy /tmp/caddy
# A copy has no file capabilities: with them the program does not start where capabilities are dropped.
RUN cp /tmp/caddy /usr/bin/caddy && rm /tmp/caddy \
    && adduser -D -H -u 10001 caddy && install -d -o caddy -g caddy /data
ENV HOME=/data XDG_DATA_HOME=/data XDG_CONFIG_HOME=/tmp
VOLUME /data
USER 10001

FROM python AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /semivl
COPY requirements.lock ./
RUN python3 -m venv .venv \
    && .venv/bin/pip install --no-cache-dir "$(grep -oE -m1 '^uv==[0-9.]+' requirements.lock)" \
    && .venv/bin/uv pip install --no-cache --python .venv/bin/python --compile-bytecode --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE prefect.yaml automations.yaml ./
COPY conf conf
COPY flows flows
COPY semivl semivl
RUN .venv/bin/uv pip install --no-cache --python .venv/bin/python --no-build-isolation --no-deps -e .

FROM gpu AS worker
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --no-create-home worker \
    && install -d -o worker -g worker /data
COPY --from=build /semivl /semivl
WORKDIR /semivl
ENV PATH=/semivl/.venv/bin:$PATH \
    HOME=/data \
    SEMIVL_HOME=/data \
    SEMIVL_ROOT=/semivl \
    PREFECT_HOME=/data/prefect \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    DO_NOT_TRACK=1 \
    MLFLOW_DISABLE_TELEMETRY=true \
    MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false \
    PREFECT_SERVER_ALLOW_EPHEMERAL_MODE=false
VOLUME /data
USER 10001
HEALTHCHECK --start-period=60s CMD ["python3", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/health', timeout=5)"]
CMD ["prefect", "worker", "start", "--pool", "semivl-gpu", "--type", "process", "--limit", "1", "--install-policy", "never", "--with-healthcheck"]
