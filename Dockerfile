# docker build --tag tablehouse .
ARG PYTHON=3.11

# Has the compilers that some dependency may need; nothing of it but /opt/tablehouse goes on.
FROM python:${PYTHON}-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
# Dependencies come first, as the lock has them: they are built again only when it changes.
COPY deploy/locks ./deploy/locks
RUN python -m venv /opt/tablehouse \
    && /opt/tablehouse/bin/pip install --no-deps --require-hashes --requirement deploy/locks/worker.txt \
    && pip install --no-deps --require-hashes --requirement deploy/locks/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY app ./app
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /opt/tablehouse/bin/pip install --no-index --no-deps --find-links /wheels tablehouse \
    && /opt/tablehouse/bin/pip uninstall --yes pip setuptools

FROM python:${PYTHON}-slim-bookworm
LABEL org.opencontainers.image.title="Tablehouse" \
      org.opencontainers.image.description="Kafka topics as tables: the latest row for a key, over HTTP, from any worker." \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/tablehouse /opt/tablehouse
# The root file system may be read-only: only the data directory is written. Its owner is a number, since Kubernetes can
# tell that a number is not root.
RUN install -d -o 10001 -g 10001 /var/lib/tablehouse
ENV PATH=/opt/tablehouse/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    TABLEHOUSE_DATA_DIR=/var/lib/tablehouse
USER 10001:10001
WORKDIR /var/lib/tablehouse
VOLUME /var/lib/tablehouse
EXPOSE 8080 9080
STOPSIGNAL SIGTERM
ENTRYPOINT ["tablehouse"]
CMD ["worker"]
