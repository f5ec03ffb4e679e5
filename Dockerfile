# Versus in a container. Two images from one file:
#   docker build --target cpu  -t versus:cpu  .
#   docker build --target cuda -t versus:cuda .
# What .dockerignore lets in is copied: the packages and what installing them needs.
# Neither holds a key, a model of others, or the right to be root. Everything made lives in the volume /workspace.

ARG PYTHON_IMAGE=python:3.11-slim-bookworm
ARG CUDA_IMAGE=nvidia/cuda:12.8.1-runtime-ubuntu24.04

FROM ${PYTHON_IMAGE} AS cpu-build
# PIP_INDEX: where torch's CPU build is found; empty to take torch from the usual index.
ARG PIP_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY constraints.txt ./
RUN python -m venv /opt/versus \
 && torch="$(grep -i '^torch==' constraints.txt)" \
 && if [ -n "$PIP_INDEX" ]; then /opt/versus/bin/pip install --index-url "$PIP_INDEX" "$torch"; fi
COPY . ./
RUN /opt/versus/bin/pip install --constraint constraints.txt '.[scale,login]'

FROM ${PYTHON_IMAGE} AS cpu
LABEL org.opencontainers.image.title="Versus" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 versus \
 && useradd --uid 10001 --gid versus --create-home versus \
 && install -d -o versus -g versus /workspace
COPY --from=cpu-build /opt/versus /opt/versus
ENV PATH=/opt/versus/bin:$PATH \
    VERSUS_WORKSPACE=/workspace \
    PYTHONUNBUFFERED=1 \
    HF_HOME=/workspace/.huggingface \
    HF_HUB_OFFLINE=1 \
    HF_HUB_DISABLE_TELEMETRY=1 \
    HAYSTACK_TELEMETRY_ENABLED=False
USER 10001:10001
WORKDIR /workspace
VOLUME ["/workspace"]
EXPOSE 8501 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
  CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(os.environ.get('VERSUS_HEALTH', 'http://127.0.0.1:8501/_stcore/health'), timeout=4)"]
ENTRYPOINT ["versus"]
CMD ["app", "--host", "0.0.0.0", "--no-browser"]

FROM ${CUDA_IMAGE} AS cuda
LABEL org.opencontainers.image.title="Versus (CUDA)" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 DEBIAN_FRONTEND=noninteractive
# Ubuntu's archive drops a version once a newer one is there: a pinned one would not build tomorrow.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3 python3-venv ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --gid 10001 versus \
 && useradd --uid 10001 --gid versus --create-home versus \
 && install -d -o versus -g versus /workspace
WORKDIR /src
COPY . ./
RUN python3 -m venv /opt/versus \
 && /opt/versus/bin/pip install --constraint constraints.txt '.[scale,gpu,login]'
ENV PATH=/opt/versus/bin:$PATH \
    VERSUS_WORKSPACE=/workspace \
    PYTHONUNBUFFERED=1 \
    HF_HOME=/workspace/.huggingface \
    HF_HUB_OFFLINE=1 \
    HF_HUB_DISABLE_TELEMETRY=1 \
    HAYSTACK_TELEMETRY_ENABLED=False
USER 10001:10001
WORKDIR /workspace
VOLUME ["/workspace"]
EXPOSE 8501 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
  CMD ["python3", "-c", "import os, urllib.request as u; u.urlopen(os.environ.get('VERSUS_HEALTH', 'http://127.0.0.1:8501/_stcore/health'), timeout=4)"]
ENTRYPOINT ["versus"]
CMD ["app", "--host", "0.0.0.0", "--no-browser"]
