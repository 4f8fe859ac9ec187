# One image for every process; its verb says which: `artstore admin api`, `artstore query projector`, `artstore topics ensure`.
# Runs as user 65532 on a read-only root file system and writes no temporary files. What it writes is a storage element of
# the kind file:///: mount a volume for it.
#
#   docker build -t artstore/file-events:0.1.0 .
#
# The base needs Python 3.11 or later as `python3` and libc; the build image the same Python with its venv module and headers,
# and a C compiler.
ARG BASE_IMAGE=python:3.12-slim-bookworm
ARG BUILD_IMAGE=python:3.12-bookworm

FROM ${BUILD_IMAGE} AS build
COPY requirements/image.lock requirements/native.lock /tmp/
COPY native /tmp/native
# pip stays outside of the environment that it fills, and so does what native/ is compiled with; all else are wheels. Bytecode is
# made here, once, and never compared with its source, for the file system is read-only. What changes with our own sources
# comes after this layer.
RUN python3 -m venv /tmp/pip \
 && python3 -m venv --without-pip /opt/artstore \
 && /tmp/pip/bin/pip --python /opt/artstore/bin/python install --no-cache-dir --no-compile --require-hashes \
    --only-binary :all: -r /tmp/image.lock \
 && /tmp/pip/bin/pip install --no-cache-dir --require-hashes --only-binary :all: -r /tmp/native.lock \
 && /tmp/pip/bin/pip wheel --no-index --no-build-isolation --no-deps --wheel-dir /tmp/native/wheel /tmp/native \
 && /tmp/pip/bin/pip --python /opt/artstore/bin/python install --no-index --no-deps --no-compile /tmp/native/wheel/*.whl \
 && /opt/artstore/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/artstore/lib \
 && echo /app > "$(/opt/artstore/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/artstore.pth" \
 && printf '#!/bin/sh\nexec /opt/artstore/bin/python -P -m cli "$@"\n' > /opt/artstore/bin/artstore \
 && chmod 755 /opt/artstore/bin/artstore \
 && mkdir -p /var/lib/artstore/files
COPY LICENSE /app/
COPY cli /app/cli
COPY consumer_query /app/consumer_query
COPY producer_admin /app/producer_admin
COPY runtime /app/runtime
COPY schemas /app/schemas
RUN /opt/artstore/bin/python -m compileall -q --invalidation-mode unchecked-hash /app

FROM ${BASE_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="ArtStore file events" \
      org.opencontainers.image.description="From an upload to a search hit: outbox, Kafka and a Postgres full-text cache." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/artstore /opt/artstore
COPY --from=build /app /app
# A new named volume takes over the owner of the folder that it covers.
COPY --from=build --chown=65532:65532 /var/lib/artstore /var/lib/artstore
ENV PATH=/opt/artstore/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 65532:65532
WORKDIR /app
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s CMD ["python", "-P", "-m", "cli.health"]
ENTRYPOINT ["artstore"]
CMD ["--help"]
