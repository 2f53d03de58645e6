# The filter as an OCI image, in the layout that Istio and Envoy Gateway take: one layer that holds
# /plugin.wasm and nothing else. From the repository's root, after `./just build`:
#
#   docker build -f envoy/docker/filter.Dockerfile -t REGISTRY/prompt-cache-filter:VERSION .
FROM scratch
COPY dist/prompt-cache-filter.wasm ./plugin.wasm
