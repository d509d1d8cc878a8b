# One image for every process of the platform; compose.yml says which one a container runs.
# The Python version is the one that requirements.lock was resolved for.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/frameworks
WORKDIR /src
# Dependencies change seldom: a layer of their own, checked by hash.
COPY requirements.lock ./
RUN /opt/frameworks/bin/pip install --require-hashes --requirement requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY schemas schemas
COPY streams streams
COPY commands commands
COPY projections projections
COPY gateway gateway
COPY edge_agent edge_agent
COPY infra infra
RUN /opt/frameworks/bin/pip install --no-deps . && /opt/frameworks/bin/python -m compileall -q /opt/frameworks/lib

FROM python:${PYTHON}-slim
RUN groupadd --gid 10001 frameworks \
    && useradd --uid 10001 --gid frameworks --no-create-home --home-dir /var/lib/frameworks --shell /usr/sbin/nologin frameworks \
    && install -d -o frameworks -g frameworks -m 0700 /var/lib/frameworks
COPY --from=build /opt/frameworks /opt/frameworks
ENV PATH=/opt/frameworks/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    FW_DATA_DIR=/var/lib/frameworks
USER 10001:10001
WORKDIR /var/lib/frameworks
VOLUME /var/lib/frameworks
STOPSIGNAL SIGTERM
CMD ["fw", "--help"]
