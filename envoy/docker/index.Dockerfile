# The index service. From the repository's root:
#
#   docker build -f envoy/docker/index.Dockerfile -t prompt-cache-index .
#
# A binary that `./just build` has left in dist/ is taken instead of compiling, on a machine whose
# C library is not newer than bookworm's, with `--build-arg BINARY=dist`.
ARG BINARY=compiled

FROM rust:1.95-bookworm AS compiled
WORKDIR /src
COPY . .
# What GET /version and the boot log say: --build-arg GIT_COMMIT=$(git rev-parse HEAD)
ARG GIT_COMMIT=unknown
RUN PROMPT_CACHE_GIT_COMMIT=$GIT_COMMIT cargo build --locked --release --package prompt-cache-index --features jemalloc && \
    mkdir /out && cp target/release/prompt-cache-index /out/

FROM scratch AS dist
COPY dist/prompt-cache-index /out/

FROM ${BINARY} AS binary

FROM debian:bookworm-slim
# The authorities for TLS to a database or a model hub. The directory is for the embedded ledger, the one
# place that is written: a volume, so that the rest can be read-only.
RUN apt-get update -q && apt-get install -y -q --no-install-recommends ca-certificates && \
    rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin && \
    useradd --system --uid 10001 --no-create-home prompt-cache && \
    install -d -o 10001 -g 10001 -m 700 /var/lib/prompt-cache
COPY --from=binary /out/prompt-cache-index /usr/local/bin/prompt-cache-index
USER 10001:10001
WORKDIR /var/lib/prompt-cache
VOLUME /var/lib/prompt-cache
EXPOSE 8088
HEALTHCHECK --interval=5s --timeout=2s --start-period=30s CMD ["prompt-cache-index", "health"]
ENTRYPOINT ["prompt-cache-index"]
CMD ["serve", "--listen", "0.0.0.0:8088"]
