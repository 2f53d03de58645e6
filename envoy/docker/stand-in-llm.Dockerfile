# The stand-in LLM, to try things without a model. From the repository's root, after `./just build`:
#
#   docker build -f envoy/docker/stand-in-llm.Dockerfile -t prompt-cache-stand-in-llm .
FROM debian:bookworm-slim
COPY dist/stand-in-llm /usr/local/bin/stand-in-llm
USER 10001:10001
EXPOSE 9000
ENTRYPOINT ["stand-in-llm"]
CMD ["0.0.0.0:9000"]
