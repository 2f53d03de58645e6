"""Runs the commands of docs/tutorial-envoy.md, with the stand-in LLM in the place of vLLM.

In a network namespace of its own, so that the page's ports are free; where none can be made it says so
and skips.
"""

import pathlib
import re
import signal
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/tutorial-envoy.md"
STAND_IN = "dist/stand-in-llm 127.0.0.1:9000 > stand-in.log &\n"
DEADLINE_S = 60
NAMESPACES = [["unshare", "--net"], ["unshare", "--net", "--map-root-user"]]


def namespace():
    up = ["sh", "-c", "ip link set lo up"]
    for command in NAMESPACES:
        try:
            if subprocess.run(command + up, capture_output=True).returncode == 0:
                return command
        except FileNotFoundError:
            pass
    return None


def script():
    """The page's commands in their order; its YAML becomes the file that the page names."""
    text = PAGE.read_text()
    entry = re.search(r"for the stand-in: `- (.+?)`", text)[1]
    commands = []
    for language, block in re.findall(r"```(\w+)\n(.*?)```", text, re.S):
        if language == "yaml":
            models = re.sub(r"models:\n.*", f"models:\n  - {entry}\n", block, flags=re.S)
            commands.append(f"cat > run/index.yaml <<'YAML'\n{models}YAML\n")
        elif block.startswith("vllm serve"):
            commands.append(STAND_IN)
        elif not block.startswith("./just"):
            commands.append(block.replace("Qwen/Qwen3-8B", "demo"))
    assert len(commands) >= 7, commands
    return "trap 'kill $(jobs -p) 2>/dev/null' EXIT\nset -e\nip link set lo up\n" + "\n".join(commands)


def main():
    command = namespace()
    if not command:
        print("tutorial-envoy.md: not run, no network namespace can be made")
        return
    with tempfile.TemporaryDirectory() as folder:
        for name in ["dist", "envoy", ".tools"]:
            (pathlib.Path(folder) / name).symlink_to(ROOT / name)
        process = subprocess.Popen(
            [*command, "bash", "-c", script()],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            said, _ = process.communicate(timeout=DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            said, _ = process.communicate()
            sys.exit(f"tutorial-envoy.md: not done in {DEADLINE_S} s\n{said}")
    written = [int(n) for n in re.findall(r'"cache_creation_input_tokens": (\d+)', said)]
    read = [int(n) for n in re.findall(r'"cache_read_input_tokens": (\d+)', said)]
    counted = re.search(r"system text +(\d+)", said)
    good = len(written) == 2 and written[0] > 1024 and written == read[::-1] and read[0] == 0
    if process.returncode != 0 or not good or not counted or int(counted[1]) != written[0]:
        sys.exit(f"tutorial-envoy.md: exit code {process.returncode}\n{said}")
    print(f"tutorial-envoy.md: {written[0]} tokens written, then read")


main()
