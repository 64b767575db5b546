"""Sessions: each installs what it needs and runs one command, which also works without nox.

``nox --no-venv -s ablation_modes`` runs in the current environment (a CUDA one, say).
"""

import nox

nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["lint", "tests"]


def prepare(session: nox.Session, *extras: str) -> None:
    """Install the project and extras, pinned; with --no-venv the environment is the user's."""
    if session.venv_backend == "none":
        return
    target = f".[{','.join(extras)}]" if extras else "."
    session.install("-c", "constraints.txt", "-e", target)


@nox.session
def lint(session: nox.Session) -> None:
    """ruff (rules and format) and the floor plan."""
    if session.venv_backend != "none":
        session.install("-c", "constraints.txt", "ruff", "import-linter")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports")


@nox.session
def tests(session: nox.Session) -> None:
    """Tests that need no GPU, the slow ones apart: under 10 minutes on two cores.

    ``nox -s tests -- -m slow`` runs the slow ones: compilation, LRTCFPan.
    """
    prepare(session, "test", "docs")
    # Two workers of one thread each: small tensors gain nothing from a second thread.
    session.run(
        "pytest", "-n", "2", "--ignore=tests/perf", "-m", "not gpu and not slow", *session.posargs,
        env={"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@nox.session(default=False)
@nox.parametrize("which", ["lowest", "newest"], ids=["lowest", "newest"])
def versions(session: nox.Session, which: str) -> None:
    """Unit and contract tests with the lowest versions that are admitted, and with the newest.

    The lowest are the bounds of ``dependencies`` in pyproject.toml; constraints.txt is left out.
    """
    if session.venv_backend == "none":
        session.error("versions are installed into environments of their own: leave --no-venv out")
    wanted = nox.project.load_toml("pyproject.toml")["project"]["dependencies"]
    if which == "lowest":
        wanted = [name.replace(">=", "==") for name in wanted]
    runner = ["pytest", "pytest-timeout", "pytest-xdist", "hypothesis"]
    session.install("--upgrade", *wanted, *runner)
    session.install("--no-deps", "-e", ".")
    session.run("python", "-c", "import torch, numpy; print(torch.__version__, numpy.__version__)")
    session.run(
        "pytest", "-n", "2", "-m", "not gpu and not slow",
        *(session.posargs or ["tests/unit", "tests/contract"]), env={"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@nox.session(default=False)
def ablation_modes(session: nox.Session) -> None:
    """Figures 6 and 7: 8, 12, 16 and 32 Fourier modes, bare and as NODiff; rows, figures."""
    prepare(session)
    session.run("python", "protocols/ablation_modes.py", *session.posargs)


@nox.session(default=False)
def paper(session: nox.Session) -> None:
    """Every table and figure of the paper, one study after the other."""
    prepare(session)
    session.run("python", "protocols/paper.py", *session.posargs)


@nox.session(default=False)
def reduced_resolution(session: nox.Session) -> None:
    """Tables 1 (left) and 2: every method at reduced resolution."""
    prepare(session)
    session.run("python", "protocols/reduced_resolution.py", *session.posargs)


@nox.session(default=False)
def full_resolution(session: nox.Session) -> None:
    """Table 1 (right): every method at full resolution."""
    prepare(session)
    session.run("python", "protocols/full_resolution.py", *session.posargs)


@nox.session(default=False)
def ablation_layers(session: nox.Session) -> None:
    """Figures 8 and 9: 2 to 12 operator layers, bare and as NODiff."""
    prepare(session)
    session.run("python", "protocols/ablation_layers.py", *session.posargs)


@nox.session(default=False)
def ablation_finetuning(session: nox.Session) -> None:
    """Table 3: NODiff without each of its parts; LoRA blind to time; ranks."""
    prepare(session)
    session.run("python", "protocols/ablation_finetuning.py", *session.posargs)


@nox.session(default=False)
def operator_roles(session: nox.Session) -> None:
    """Figure 1: an operator before the diffusion, refined by it, as its denoiser."""
    prepare(session)
    session.run("python", "protocols/operator_roles.py", *session.posargs)


@nox.session(default=False)
def ablation_sampler(session: nox.Session) -> None:
    """DDIM and DDPM, one step to many: quality against time."""
    prepare(session)
    session.run("python", "protocols/ablation_sampler.py", *session.posargs)


@nox.session(default=False)
def visuals(session: nox.Session) -> None:
    """Figures 4 and 5: images with zoom boxes, error maps, HQNR maps."""
    prepare(session)
    session.run("python", "protocols/visuals.py", *session.posargs)


@nox.session(default=False)
def backbones(session: nox.Session) -> None:
    """Which denoiser? The registered backbones, bare and as NODiff; rows, tables, figures."""
    prepare(session)
    session.run("python", "protocols/backbones.py", *session.posargs)


@nox.session(default=False)
def new_backbone(session: nox.Session) -> None:
    """Write a template of a backbone of your own: ``nox -s new_backbone -- my_net``."""
    prepare(session)
    session.run("python", "-m", "backbones.new", *session.posargs)


@nox.session(default=False)
def methods(session: nox.Session) -> None:
    """Every method of the paper's tables: classical, deep, NODiff; accuracy beside cost."""
    prepare(session)
    session.run("python", "protocols/methods.py", *session.posargs)


@nox.session(default=False)
def budget(session: nox.Session) -> None:
    """The steps of each deep method that five minutes of one core buy: bench/config/budget.toml."""
    prepare(session)
    session.run("python", "protocols/budget.py", *session.posargs)


@nox.session(default=False)
def modes_explained(session: nox.Session) -> None:
    """Why twelve modes? Moves ratio and patch, and looks whether the best count follows."""
    prepare(session)
    session.run("python", "protocols/modes_explained.py", *session.posargs)


@nox.session(default=False)
def resolution_transfer(session: nox.Session) -> None:
    """Trained on 64 pixels, run at 64 to 512: whole, modes scaled, tiled; quality and cost."""
    prepare(session)
    session.run("python", "protocols/resolution_transfer.py", *session.posargs)


@nox.session(default=False)
def tune(session: nox.Session) -> None:
    """Learning rates on validation, the same grid and number of trials for every backbone."""
    prepare(session)
    session.run("python", "protocols/tune.py", *session.posargs)


@nox.session(default=False)
def efficiency(session: nox.Session) -> None:
    """Figure 2: FLOPs, memory and time of the backbones; growth, roofline, Pareto front."""
    prepare(session)
    session.run("python", "protocols/efficiency.py", *session.posargs)


@nox.session(default=False)
def scenes(session: nox.Session) -> None:
    """Peak memory of scenes fused from disk to disk, 1k to 16k pixels: half an hour."""
    prepare(session)
    session.run("python", "protocols/scenes.py", *session.posargs)


@nox.session(default=False)
def speed(session: nox.Session) -> None:
    """The spectral operator and the sampler beside neuraloperator and the plain loop; rows."""
    prepare(session, "test")
    session.run("python", "protocols/speed.py", *session.posargs)


@nox.session(default=False)
def perf(session: nox.Session) -> None:
    """Speed as ratios to baselines in the same run; says what got slower since the last one."""
    prepare(session, "test")
    session.run("pytest", "tests/perf", "--benchmark-autosave", *session.posargs)


@nox.session(default=False)
def torture(session: nox.Session) -> None:
    """Broken files by the thousand, into every reader; ``ablation_modes`` ended a hundred times.

    ``nox -s torture -- files --count 20000 --seed 1`` for more files and other ones,
    ``nox -s torture -- kills --trials 10 --real`` for ends of the smoke preset itself.
    """
    prepare(session, "test")
    what, *arguments = session.posargs or ["all"]
    if what in ("all", "files"):
        files = arguments or ["--count", "2000"]
        session.run("python", "tests/fuzz/torture.py", *files)
        session.run("python", "tests/fuzz/checkpoints.py", *files)
    if what in ("all", "kills"):
        session.run("python", "tests/fuzz/kills.py", *(arguments or ["--trials", "100"]))
        if what == "all":
            session.run("python", "tests/fuzz/kills.py", "--trials", "6", "--real")


@nox.session(default=False)
def report(session: nox.Session) -> None:
    """Rebuild tables and figures from rows; needs no torch at run time."""
    prepare(session)
    session.run("python", "bench/report.py", *(session.posargs or ["results/published"]))


@nox.session(default=False)
def docs(session: nox.Session) -> None:
    """The documentation, into build/docs: broken links and anchors fail; no network to read it."""
    prepare(session, "docs")
    env = {"NO_MKDOCS_2_WARNING": "1"}
    session.run("mkdocs", "build", "--strict", *session.posargs, env=env)
