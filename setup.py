"""Install espnet_star, the ESPnet plugin that distills speech encoders with STaR."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

# ESPnet 202511 imports torchaudio from its ASR task without declaring it, and
# 202611 pins the last release that loads beside current torch builds.
CORE = [
    "torch>=2.1",
    "torchaudio",
    "espnet>=202511",
    "espnet_model_zoo",
    "sentencepiece",
    "humanfriendly",
    "typeguard",
    "transformers>=5",
    "huggingface_hub",
    "safetensors",
    "soundfile",
    "soxr",
    "numpy",
    "scipy",
    "PyYAML",
    "omegaconf",
]
EXTRAS = {
    # What the recipes under egs2 call: corpora, tokens, scoring, ESPnet's own
    # classification metrics and equal error rates, plots and the report.
    "recipes": [
        "lhotse",
        "jiwer",
        "jinja2",
        "matplotlib",
        "tensorboard",
        "editdistance",
        "torcheval",
        "scikit-learn",
    ],
    # Training from shards; stores other than HTTP want smart_open's own extras (s3, gcs, azure).
    "shards": ["lhotse", "smart_open[http]"],
    # ESPnet's fork: s3prl itself does not import beside torchaudio 2.9 and later.
    # The rest is what its SUPERB tasks import and do not declare.
    "s3prl": [
        "espnet-s3prl",
        "sed_eval",
        "pandas",
        "librosa",
        "scikit-learn",
        "editdistance",
        "joblib",
        "tensorboard",
    ],
    # Decoding with an n-gram; its wheels, which bring KenLM, end at Python 3.12.
    "lm": ["flashlight-text; python_version < '3.13'"],
    # Recipes under egs3: what ESPnet 202611's espnet3 needs besides ESPnet itself.
    "espnet3": [
        "espnet>=202611; python_version >= '3.12'",
        "lightning>=2.6; python_version >= '3.12'",
        "tensorboard; python_version >= '3.12'",
    ],
    # torch.export takes the options that star_export onnx needs.
    "onnx": ["onnx", "onnxruntime", "onnxscript", "torch>=2.11"],
    # playwright drives a Chromium of the system's own; tests of the page skip without one.
    "test": ["pytest", "pytest-xdist", "playwright"],
    "dev": ["ruff", "mypy", "types-PyYAML"],
    # The documentation, and what runs the notebook under examples.
    "docs": ["sphinx", "furo", "myst-parser", "griffelib>=2", "latex2mathml"],
    "notebook": ["nbclient", "nbformat", "ipykernel", "matplotlib"],
}
EXTRAS["all"] = sorted({name for names in EXTRAS.values() for name in names})


def version() -> str:
    """Read ``__version__`` without importing the package."""
    for line in (HERE / "espnet_star" / "__init__.py").read_text().splitlines():
        if line.startswith("__version__"):
            return line.split('"')[1]
    raise RuntimeError("espnet_star/__init__.py has no __version__ line")


setup(
    name="espnet_star",
    version=version(),
    description="STaR distillation of speech encoders as an ESPnet plugin",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["espnet_star", "espnet_star.*"]),
    package_data={
        "espnet_star.evaluate.report": ["page.html"],
        "espnet_star.espnet3": ["conf/*.yaml"],
    },
    python_requires=">=3.11",
    install_requires=CORE,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["espnet-star = espnet_star.__main__:main"]},
)
