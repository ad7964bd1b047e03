# All images of OSPay: `docker build --target service --build-arg SERVICE=orders .`, and the targets migrations and
# devchain. What is fetched is pinned by hash in requirements/.

FROM python:3.11-slim-trixie AS base
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PYTHONUNBUFFERED=1

# The libraries of all services: one layer that the four images share.
FROM base AS libraries
COPY requirements/runtime.txt /build/requirements.txt
RUN python -m venv /opt/ospay && \
    /opt/ospay/bin/python -m pip install --require-hashes --requirement /build/requirements.txt

# Our own packages; the protobuf code is generated here.
FROM base AS packages
WORKDIR /build
COPY requirements/build.txt requirements.txt
RUN python -m pip install --require-hashes --requirement requirements.txt
COPY protos protos
COPY kit kit
COPY chains chains
RUN python -m pip install --no-deps --no-build-isolation --target /opt/packages ./protos ./kit ./chains
ARG SERVICE
COPY services/${SERVICE} service
RUN python -m pip install --no-deps --no-build-isolation --target /opt/packages ./service

FROM base AS migrations
COPY requirements/migrations.txt /build/requirements.txt
RUN python -m pip install --require-hashes --requirement /build/requirements.txt
COPY services/orders/migrations /migrations/orders
COPY services/verifier/migrations /migrations/verifier
COPY services/ledger/migrations /migrations/ledger
USER 10001:10001
# No .env file of some folder decides about a database, and nothing is written beside the migrations.
ENTRYPOINT ["dbmate", "--env-file=/dev/null", "--no-dump-schema"]

FROM nats:2.15.1-alpine AS nats
# A new volume takes its owner from here.
RUN install -d -o 10001 -g 10001 /data
COPY deploy/nats.conf /etc/nats/ospay.conf
USER 10001:10001
ENTRYPOINT ["nats-server", "--config", "/etc/nats/ospay.conf"]

# A chain for trying things out, with the token of local/. Never for production.
FROM base AS devchain
WORKDIR /ospay
COPY requirements/dev.txt requirements.txt
RUN python -m pip install --require-hashes --requirement requirements.txt
COPY package.json ./
RUN npm install --no-package-lock --no-audit --no-fund --ignore-scripts && \
    install --directory --owner=10001 --group=10001 /chain
COPY contracts contracts
RUN node contracts/compile.js
COPY local/src local/src
COPY deploy/devchain_token.py deploy/
# The program itself: the wrapper of npm would take the signals.
ARG TARGETARCH
ENV PATH=/ospay/node_modules/@foundry-rs/anvil-linux-${TARGETARCH}/bin:$PATH \
    PYTHONPATH=/ospay/local/src
USER 10001:10001

# Last, so that it is what a plain `docker build` makes. The command is the service's name.
FROM base AS service
COPY --from=libraries /opt/ospay /opt/ospay
COPY --from=packages /opt/packages /opt/packages
COPY config/chains.toml /etc/ospay/chains.toml
ENV PATH=/opt/ospay/bin:$PATH \
    PYTHONPATH=/opt/packages
USER 10001:10001
ENTRYPOINT ["python", "-m"]
