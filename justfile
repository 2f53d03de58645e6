# Run these with ./just, which brings the pinned tools along.

target := env("CARGO_TARGET_DIR", "target")
wasm_bytes_max := "500000"
# The same commit gives the same module wherever it is built: no folder of the machine gets in.
reproducible := '. .ci/reproducible &&'
# Without make the service's allocator is the C library's.
allocator := `command -v make >/dev/null 2>&1 && echo '--features prompt-cache-index/jemalloc' || true`
# Benchmarks run Envoy on core 0, or BENCH_ENVOY_CORE, and everything else on this one.
bench_load_core := env("BENCH_LOAD_CORE", "1")

[private]
default:
    @{{ quote(just_executable()) }} --justfile {{ quote(justfile()) }} --list --unsorted

# Start everything, show writes, reads and a refusal with their usage and counters, clean up
demo: build _envoy
    @exec dist/stack demo

# The same stack in the foreground; settings come from the environment (see docs/testing.md)
up: build _envoy
    @exec dist/stack up

# All tests that need no Docker, Envoy end to end included
[positional-arguments]
test *ARGS: build _trap _envoy _nextest
    @test $# -gt 0 || {{ quote(just_executable()) }} --justfile {{ quote(justfile()) }} test-wasm
    @test $# -gt 0 || cargo test --locked --quiet --doc --package prompt-cache-core
    cargo nextest run --locked --workspace --exclude prompt-cache-filter "$@"

# Pinned clients (Python and Node) × APIs × features against a running stack, as docs/clients.md shows it (UPDATE_DOCS=1 writes that); or only the rows NAMEd
[positional-arguments]
test-clients *NAME: build _envoy
    @./just --ensure clients
    @exec python3 tests/clients/run.py .tools/clients dist/stack "$@"

# The official OpenAI and Anthropic clients among them
test-sdk: (test-clients "openai (Python), chat" "anthropic (Python)")

# The status page in a headless Chromium, which apt installs where it may; PAGE_SHOTS=FOLDER leaves screenshots
test-page: build
    @tests/page/run dist/prompt-cache-index

# The ledger on real PostgreSQL, Redis and a Redis Cluster, their faults included; installs them with apt
[positional-arguments]
test-stores *ARGS: build _envoy _nextest
    cargo build --locked --quiet --package prompt-cache-test-servers
    tests/servers/run {{ quote(target / "debug/with-stores") }} cargo nextest run --locked --workspace --exclude prompt-cache-filter --run-ignored only "$@"

# Programs of older COMMITs (those of tests/upgrade/commits) with these: filter and service of two releases, ledgers, a rolling replacement
test-upgrade *COMMITS: build _envoy _nextest
    cargo build --locked --quiet --package prompt-cache-test-servers
    @tests/upgrade/run {{ quote(target) }} {{ quote(target / "debug/with-stores") }} {{ COMMITS }}

# Our token counts beside the Python libraries' on generated conversations (ORACLE_CONVERSATIONS=10000)
test-oracle:
    @if ./just --ensure oracle; then \
        cargo build --locked --release --package prompt-cache-index --example count_tokens {{ allocator }} && \
        exec .tools/oracle/venv/bin/python tests/oracle/run.py {{ quote(target / "release/examples/count_tokens") }} .tools/oracle/files .tools/oracle/npm; \
    else \
        echo "test-oracle: skipped, its packages could not be fetched"; \
    fi

# Manifests, Helm chart, compose file and alert rules against their schemas and tools, and each Envoy config in a real Envoy
test-deploy: build _deploy _envoy _nextest
    cargo nextest run --locked --package prompt-cache-e2e -E 'binary(envoy) + binary(monitoring)'

# The images, checked, and the tests through Envoy against containers; then the compose file (needs a Docker daemon)
[positional-arguments]
e2e-docker *ARGS: build _trap _envoy _nextest
    @exec tests/docker/e2e "$@"

# The long form of the crash test: the service killed 200 times under load
test-crash: _nextest
    CRASH_ROUNDS=200 cargo nextest run --locked --workspace --exclude prompt-cache-filter -E 'test(survives_kill_9_under_load)' --no-capture

# The whole system while everything around it fails: MINUTES SEED [embedded|postgres|redis] (see docs/reliability.md)
chaos MINUTES SEED *MORE: build _envoy
    @{{ quote(just_executable()) }} --justfile {{ quote(justfile()) }} _place {{ quote(target / "release/chaos") }} chaos
    @tests/chaos/run dist/chaos {{ MINUTES }} {{ SEED }} {{ MORE }}

# Lies, one after the other, that the checker of `chaos` must find out
chaos-plants *LIES="read-more other-tenant flip-byte unearned expired long-hold failed": build _envoy
    @{{ quote(just_executable()) }} --justfile {{ quote(justfile()) }} _place {{ quote(target / "release/chaos") }} chaos
    @for lie in {{ LIES }}; do \
        tests/chaos/run dist/chaos 0.75 3 embedded --plant $lie >dist/chaos-plant.log 2>&1 || { cat dist/chaos-plant.log; echo "chaos: $lie was not found out" >&2; exit 1; }; \
        echo "$lie: found out, $(tail -n 1 dist/chaos-plant.log | tr -s ' ')"; \
    done

# Twice what the index service can take, and twice what Envoy can take, beside Envoy alone. Needs two cores (see docs/reliability.md)
overload: build _envoy
    @{{ quote(just_executable()) }} --justfile {{ quote(justfile()) }} _place {{ quote(target / "release/load") }} load
    @exec taskset --cpu-list {{ bench_load_core }} dist/load overload

# Mixed requests, and what memory, descriptors, connections, stats and the ledger do meanwhile: draws docs/soak.svg
soak REQUESTS="2000000": build _trap _envoy
    @{{ quote(just_executable()) }} --justfile {{ quote(justfile()) }} _place {{ quote(target / "release/load") }} load
    @SOAK_PLOT=${SOAK_PLOT-docs/soak.svg} exec dist/load soak {{ REQUESTS }}

# core's tests again, as wasm32-wasip1 with SIMD like the filter itself, under Node 20 or newer
test-wasm *ARGS: _wasm
    @if node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' 2>/dev/null; then \
        CARGO_PROFILE_DEV_OPT_LEVEL=1 CARGO_PROFILE_DEV_DEBUG=false \
            cargo test --locked --target wasm32-wasip1 --package prompt-cache-core --tests {{ ARGS }}; \
    else \
        echo "test-wasm: skipped, there is no Node 20 or newer on PATH"; \
    fi

# The tests through Envoy on two versions of it (1.39.0 loses a chunk when it is resumed early) and with one and two workers
test-matrix *ARGS: build _trap _nextest
    for version in 1.40.0 1.39.0; do for workers in 1 2; do \
        ENVOY_VERSION=$version ./just --ensure envoy || exit; \
        echo "Envoy $version, $workers workers"; \
        ENVOY_VERSION=$version CONCURRENCY=$workers cargo nextest run --locked --package prompt-cache-e2e {{ ARGS }} || exit; \
    done; done

# Formatting and lints, natively and for the filter's own target
lint: _wasm
    cargo fmt --all --check
    cargo clippy --locked --workspace --exclude prompt-cache-filter --all-targets -- -D warnings
    cargo clippy --locked --package prompt-cache-filter --target wasm32-wasip1 --features trap,memory-gauge -- -D warnings
    cargo fmt --manifest-path fuzz/Cargo.toml --check
    cargo fmt --manifest-path index-service/engines/Cargo.toml --check
    cargo fmt --manifest-path index-service/bench-tokens/Cargo.toml --check
    cargo clippy --locked --manifest-path fuzz/Cargo.toml --no-default-features --release --target "$(rustc --print host-tuple)" --target-dir {{ quote(target / "fuzz") }} -- -D warnings

# Dependencies: licences, sources, bans; known vulnerabilities where the advisory database can be reached
audit:
    @if ./just --ensure deny; then exec .ci/audit; else echo "audit: skipped, cargo-deny could not be installed"; fi

# dist/: the filter, the index service, the stack runner and the stand-in LLM
build: _wasm
    {{ reproducible }} cargo build --locked --profile wasm --target wasm32-wasip1 --package prompt-cache-filter
    {{ reproducible }} cargo build --locked --release --package prompt-cache-index --package prompt-cache-e2e --bins {{ allocator }}
    mkdir -p dist
    @{{ quote(just_executable()) }} --justfile {{ quote(justfile()) }} _place {{ quote(target / "wasm32-wasip1/wasm/prompt_cache_filter.wasm") }} prompt-cache-filter.wasm
    @{{ quote(just_executable()) }} --justfile {{ quote(justfile()) }} _place {{ quote(target / "release/prompt-cache-index") }} prompt-cache-index
    @{{ quote(just_executable()) }} --justfile {{ quote(justfile()) }} _place {{ quote(target / "release/stack") }} stack
    @{{ quote(just_executable()) }} --justfile {{ quote(justfile()) }} _place {{ quote(target / "release/stand-in-llm") }} stand-in-llm
    @size=$(wc -c < dist/prompt-cache-filter.wasm); \
        echo "dist/prompt-cache-filter.wasm: $size bytes"; \
        test "$size" -lt {{ wasm_bytes_max }} || { echo "error: the filter must stay below {{ wasm_bytes_max }} bytes: Envoy compiles it before it takes traffic" >&2; exit 1; }

# dist/release/: both programs, checksums, bills of materials; the module is built twice, in two places, and must be the same
release: build
    @exec .ci/release

# Every fuzz target (or one) for so many seconds, or executions (10M), from the committed corpus: executions, coverage
fuzz AMOUNT *TARGET:
    @fuzz/run {{ AMOUNT }} {{ TARGET }}

# Changes of core that its tests must notice, one after the other: hours for all (--file 'tier.rs', --shard 0/8, --in-diff FILE)
mutants *ARGS:
    @./just --ensure mutants
    cargo mutants --package prompt-cache-core --output target {{ ARGS }}

# How much of core its own tests reach: docs/coverage.md, and line by line in target/llvm-cov/html
coverage:
    @./just --ensure llvm-cov
    @exec python3 tests/coverage/run.py docs/coverage.md

# The core's speed natively and inside Envoy's VM, beside the plain way
bench-core: build _bench _envoy
    cargo bench --locked --package prompt-cache-core --bench request --bench response --bench memory
    @exec taskset --cpu-list {{ bench_load_core }} dist/bench core

# Counting tokens beside other tokenizers, and cold prompts of 100 KB through the service's own route
bench-tokens:
    cargo build --locked --release --manifest-path index-service/bench-tokens/Cargo.toml --target-dir {{ quote(target) }}
    @exec {{ quote(target / "release/prompt-cache-bench-tokens") }}

# The whole system beside Envoy alone, paired: tables, and docs/benchmarks.svg. Needs two cores (see docs/benchmarks.md)
bench: build _bench _envoy
    @BENCH_PLOT=${BENCH_PLOT-docs/benchmarks.svg} exec taskset --cpu-list {{ bench_load_core }} dist/bench system

# The index service with ledgers of 10 thousand, 1 million and 10 million entries, on all stores (see docs/benchmarks.md)
bench-index:
    cargo bench --locked --package prompt-cache-index --bench index --no-run
    cargo build --locked --quiet --package prompt-cache-test-servers
    @servers='tests/servers/run {{ target }}/debug/with-stores'; test "${BENCH_STORES:-}" != embedded || servers=; \
        exec taskset --cpu-list {{ bench_load_core }} $servers cargo bench --locked --package prompt-cache-index --bench index

# The embedded store's engine beside another on the ledger's workload, in a workspace of its own (see docs/benchmarks.md)
bench-engines:
    cargo build --locked --release --manifest-path index-service/engines/Cargo.toml --target-dir {{ quote(target / "engines") }}
    @exec {{ quote(target / "engines/release/prompt-cache-engines") }}

# What .ci/run calls
ci: lint audit _fuzz test-clients test-page test-oracle test-stores _deploy _chaos test

# The same inputs to start from each time; a machine that cannot link libFuzzer goes on without
[private]
_fuzz:
    @FUZZ_FRESH=1 FUZZ_WITHOUT_CXX=0 fuzz/run 5

# For CI: CHAOS_MINUTES (10) with a new seed each time, which is printed; CHAOS_SEED repeats one
[private]
_chaos:
    @seed=${CHAOS_SEED:-$(date +%s)}; echo "chaos: seed $seed"; {{ quote(just_executable()) }} --justfile {{ quote(justfile()) }} chaos "${CHAOS_MINUTES:-10}" "$seed"

# The filter whose VM traps on demand and tells its size, in a file of its own: it never ships
[private]
_trap: _wasm
    cargo build --locked --profile wasm --target wasm32-wasip1 --package prompt-cache-filter --features trap,memory-gauge --target-dir {{ quote(target / "trap") }}
    mkdir -p dist/test-only
    @{{ quote(just_executable()) }} --justfile {{ quote(justfile()) }} _place {{ quote(target / "trap/wasm32-wasip1/wasm/prompt_cache_filter.wasm") }} test-only/prompt-cache-filter-trap.wasm

# The benchmarks' runner (`build` has compiled it), and the module that is measured: the plain way
# gets all optimisation, too
[private]
_bench: _wasm
    cargo build --locked --profile wasm --target wasm32-wasip1 --package prompt-cache-filter --features bench --config 'profile.wasm.opt-level=3' --target-dir {{ quote(target / "bench") }}
    mkdir -p dist/test-only
    @{{ quote(just_executable()) }} --justfile {{ quote(justfile()) }} _place {{ quote(target / "bench/wasm32-wasip1/wasm/prompt_cache_filter.wasm") }} test-only/prompt-cache-filter-bench.wasm
    @{{ quote(just_executable()) }} --justfile {{ quote(justfile()) }} _place {{ quote(target / "release/bench") }} bench

# By rename: a running stack keeps its own copy, and nobody sees half a file
[private]
_place from to:
    @cmp -s {{ quote(from) }} {{ quote("dist" / to) }} || { cp {{ quote(from) }} {{ quote("dist" / to + ".new") }} && mv -f {{ quote("dist" / to + ".new") }} {{ quote("dist" / to) }}; }

# Needs dist/
[private]
_deploy: _envoy
    @python3 tests/deploy/tutorial.py
    @if ./just --ensure deploy; then \
        exec python3 tests/deploy/check.py .tools/deploy; \
    else \
        echo "test-deploy: manifests not checked, the packages that check them could not be fetched"; \
    fi

[private]
_envoy:
    @./just --ensure envoy

[private]
_wasm:
    @./just --ensure wasm

[private]
_nextest:
    @./just --ensure nextest
