# The sync API: serves devices and web users from the log and PostgreSQL; stateless, any number of replicas.
# The build context is the root of the repository:
#   docker build -f deploy/docker/sync-api.Dockerfile .

FROM rust:1.95-bookworm AS build
WORKDIR /build
COPY . .
# The caches are shared by the three images, so a dependency is compiled once; `locked` because cargo expects to
# be alone in a target directory. A cache is no layer, hence the copy of the binary in the same step.
RUN --mount=type=cache,id=posduif-registry,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,id=posduif-target,target=/build/target,sharing=locked \
    cargo build --release --locked -p posduif-sync-api \
    && install -D -m 0755 target/release/posduif-sync-api /out/posduif-sync-api

FROM debian:bookworm-slim
LABEL org.opencontainers.image.title="posduif-sync-api" \
      org.opencontainers.image.licenses="Apache-2.0"
# Versions are not pinned: Debian keeps only the newest one of a stable release, and that is the one with the fixes.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --system --gid 10001 posduif \
    && useradd --system --uid 10001 --gid posduif --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin posduif
COPY --chmod=0755 deploy/docker/healthcheck.sh /usr/local/bin/healthcheck
COPY --from=build /out/posduif-sync-api /usr/local/bin/posduif-sync-api
# By number, so that a platform that forbids root can see that it is not root.
USER 10001:10001
EXPOSE 8080 9090
STOPSIGNAL SIGTERM
# Liveness only: a database that is away is not cured by replacing this process.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["healthcheck", "9090"]
ENTRYPOINT ["posduif-sync-api"]
CMD ["--config", "/etc/posduif/config.yaml"]
