"""What deploy/ names exists (settings, extras, packages, addresses, files), and its images are as they should be."""

import ast
import configparser
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
import yaml
from conftest import ROOT
from keras_matting_api import memory
from keras_matting_api.app import create_app
from keras_matting_api.settings import ServiceSettings
from server import Server

from keras_matting.cli import VERBS
from keras_matting.engines import ENGINES
from keras_matting.photos import footprint
from keras_matting.photos.files import encode
from keras_matting.shipped import DEFAULT_MODEL, SHIPPED, SHIPPED_FILES

DEPLOY = ROOT / "deploy"
DOCKERFILES = {name: DEPLOY / "docker" / name for name in ("Dockerfile", "Dockerfile.gpu")}
PREFIX = "KERAS_MATTING_"
PINNED = re.compile(r".+:v?\d[\w.-]*\d[\w.-]*")  # an image with a tag that has a version of two numbers or more


def instructions(path):
    """Return the [(INSTRUCTION, rest)] of a Dockerfile, its variables filled in with the defaults of ARG."""
    text = re.sub(r"^#.*\n", "", path.read_text(), flags=re.MULTILINE).replace("\\\n", "")
    found = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    defaults = dict(shlex.split(rest)[0].split("=", 1) for name, rest in found if name == "ARG")
    return [(name, re.sub(r"\$\{(\w+)\}", lambda match: defaults[match[1]], rest)) for name, rest in found]


def stages(path):
    """Return each stage's instructions, the last one being the image's."""
    found = []
    for name, rest in instructions(path):
        if name == "FROM":
            found.append([])
        if found:
            found[-1].append((name, rest))
    return found


def only(stage, instruction):
    (rest,) = [rest for name, rest in stage if name == instruction]
    return rest


def environment(stage):
    return dict(pair.split("=", 1) for name, rest in stage if name == "ENV" for pair in shlex.split(rest))


def health_command(stage):
    return json.loads(only(stage, "HEALTHCHECK").split("CMD", 1)[1])


def settings_in(variables):
    """Return the `ServiceSettings` that environment variables make; fails on one that is none."""
    ours = {name: value for name, value in variables.items() if name.startswith(PREFIX) and value is not None}
    named = {name.removeprefix(PREFIX).lower(): value for name, value in ours.items()}
    assert set(named) <= set(ServiceSettings.model_fields)
    made = ServiceSettings(**named)
    assert made.engine in ENGINES or made.engine == "auto"
    return made


def addresses():
    return set(create_app(ServiceSettings()).openapi()["paths"])


def setup():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def pins(path):
    return dict(line.lower().replace("_", "-").split("==") for line in path.read_text().split())


@pytest.fixture(params=DOCKERFILES)
def dockerfile(request):
    return DOCKERFILES[request.param]


def test_images_are_pinned_non_root_and_without_build_tools(dockerfile):
    *_, image = stages(dockerfile)
    names = [name for name, _ in image]
    assert all(PINNED.fullmatch(rest.split()[0]) for name, rest in instructions(dockerfile) if name == "FROM")
    user, _, group = only(image, "USER").partition(":")
    assert int(user) > 0 and int(group) > 0
    assert not set(names[names.index("USER") :]) & {"RUN", "COPY", "ADD"}
    assert not re.search(
        r"\b(apt|apt-get|pip|curl|wget|gcc)\b", " ".join(rest for name, rest in image if name == "RUN")
    )


def test_images_start_a_verb_that_gets_their_signals(dockerfile):
    *_, image = stages(dockerfile)
    command, verb = json.loads(only(image, "ENTRYPOINT"))  # exec form: no shell stands between
    assert f"{command} = " in setup()["options.entry_points"]["console_scripts"]
    assert verb in VERBS
    assert only(image, "STOPSIGNAL") == "SIGTERM"


def test_images_set_what_can_be_set_and_ask_what_can_be_asked(dockerfile):
    *_, image = stages(dockerfile)
    settings = settings_in(environment(image))
    assert settings.port == int(only(image, "EXPOSE"))
    assert settings.host == ("0.0.0.0",)
    assert [Path(model).name for model in settings.models] == [DEFAULT_MODEL]
    assert all(model.startswith("/models/") for model in (*settings.models, *settings.models_on_demand))
    path = re.search(r"'(/\w+)'", health_command(image)[-1])[1]
    assert path in addresses()


def test_images_install_extras_and_packages_that_are_pinned(dockerfile):
    build, _ = stages(dockerfile)
    (install,) = (rest for name, rest in build if name == "RUN" and "pip install" in rest)
    arguments = shlex.split(install)[2:]
    files = [arguments[index + 1] for index, word in enumerate(arguments) if word == "--constraint"]
    pinned = {name for file in files for name in pins(ROOT / file.removeprefix("/src/"))}
    source, *packages = [word for word in arguments if word not in files and not word.startswith("--")]
    extras = re.fullmatch(r"/src\[(.*)\]", source)[1].split(",")
    assert set(extras) <= set(setup()["options.extras_require"])
    assert packages and {package.partition("[")[0] for package in packages} <= pinned


def test_the_builder_gets_the_package_and_no_more():
    everything, *allowed = [
        line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] not in "#"
    ]
    assert everything == "*"
    kept = {line[1:] for line in allowed if line.startswith("!")}
    assert all((ROOT / path).exists() for path in kept)
    folders = {value.strip() for value in re.findall(r"= *(\w+)$", setup()["options"]["package_dir"], re.MULTILINE)}
    shipped = {f"saved_models/{name}/{file}" for name in SHIPPED for file in SHIPPED_FILES}
    metadata = setup()["metadata"]
    terms = {
        path.relative_to(ROOT).as_posix()
        for pattern in metadata["license_files"].split()
        for path in ROOT.glob(pattern)
    }
    described = {*terms, metadata["long_description"].removeprefix("file: ")}
    used = {path for file in DOCKERFILES.values() for path in re.findall(r"/src/([\w./-]+)", file.read_text())}
    assert kept == folders - {"saved_models"} | shipped | described | used | {"setup.cfg", "pyproject.toml"}


def compose():
    return yaml.safe_load((DEPLOY / "docker" / "compose.yaml").read_text())


@pytest.mark.parametrize("name", compose()["services"])
def test_composed_containers_are_confined(name):
    service = compose()["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["mem_limit"] and service["pids_limit"]
    assert "build" in service or PINNED.fullmatch(service["image"])


def test_compose_names_files_and_settings_that_exist():
    folder = DEPLOY / "docker"
    service, prometheus = (compose()["services"][name] for name in ("matting", "prometheus"))
    context = (folder / service["build"]["context"]).resolve()
    assert context == ROOT
    assert context / service["build"]["dockerfile"] == DOCKERFILES["Dockerfile"]
    settings = settings_in(service["environment"])
    (_, container_port) = service["ports"][0].split(":")
    assert int(container_port) == settings.port
    seconds = settings.body_grace_s + settings.deadline_s + settings.drain_s
    assert int(service["stop_grace_period"].removesuffix("s")) > seconds
    source, target, mode = re.fullmatch(r"\$\{MODELS:-(.*)\}:(.*):(.*)", service["volumes"][0]).groups()
    assert (folder / source).is_dir()
    assert settings.models[0].startswith(f"{target}/")
    assert mode == "ro"
    file, inside, _ = prometheus["volumes"][0].split(":")
    assert (folder / file).is_file()
    assert f"--config.file={inside}" in prometheus["command"]


def test_prometheus_asks_the_service_for_its_metrics():
    (job,) = yaml.safe_load((DEPLOY / "docker" / "prometheus.yml").read_text())["scrape_configs"]
    assert job["metrics_path"] in addresses()
    (target,) = job["static_configs"][0]["targets"]
    name, port = target.split(":")
    assert int(port) == settings_in(compose()["services"][name]["environment"]).port


def inference_service(name):
    manifest = yaml.safe_load((DEPLOY / "kserve" / name).read_text())
    assert (manifest["apiVersion"], manifest["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    return manifest["spec"]["predictor"]


def test_kserve_runs_the_image_as_it_is_made():
    predictor = inference_service("service.yaml")
    (container,) = predictor["containers"]
    *_, image = stages(DOCKERFILES["Dockerfile"])
    variables = {entry["name"]: entry["value"] for entry in container["env"]}
    settings = settings_in(environment(image) | variables)
    assert container["name"] == "kserve-container"
    assert variables["PROTOCOL"] == "v2"
    assert settings.models == ("/mnt/models",)  # where KServe mounts STORAGE_URI
    assert [port["containerPort"] for port in container["ports"]] == [settings.port]
    for probe in ("readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["path"] in addresses()
        assert container[probe]["httpGet"]["port"] == settings.port
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert str(predictor["securityContext"]["runAsUser"]) == only(image, "USER").partition(":")[0]
    seconds = settings.body_grace_s + settings.deadline_s + settings.drain_s
    assert predictor["terminationGracePeriodSeconds"] > seconds


def test_kserve_s_triton_gets_the_repository_that_export_writes():
    model = inference_service("triton.yaml")["model"]
    text = (DEPLOY / "kserve" / "triton.yaml").read_text()
    repository = re.search(r"--triton (\S+) ", text)[1]
    assert Path(model["storageUri"].removeprefix("pvc://models/")) == Path(repository).relative_to("/models")
    assert model["protocolVersion"] == "v2"
    assert model["modelFormat"] == {"name": "triton", "version": "2"}
    assert re.fullmatch(r"\d\d\.\d\d-py3", model["runtimeVersion"])


def test_ray_s_configuration_fits_the_application(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    from deploy.ray.scale import Scale

    (application,) = yaml.safe_load((DEPLOY / "ray" / "config.yaml").read_text())["applications"]
    module, name = application["import_path"].split(":")
    tree = ast.parse((ROOT / module.replace(".", "/")).with_suffix(".py").read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    Scale(**application["args"])
    settings_in(application["runtime_env"]["env_vars"])
    with pytest.raises(ValueError, match="min_replicas"):
        Scale(min_replicas=3, max_replicas=2)


def shipped_limits():
    """Yield (where it stands, the memory limit in MiB, the settings there)."""
    (container,) = inference_service("service.yaml")["containers"]
    yield "kserve", int(container["resources"]["limits"]["memory"].removesuffix("Gi")) * 1024, ServiceSettings()
    service = compose()["services"]["matting"]
    yield "compose", int(service["mem_limit"].removesuffix("g")) * 1024, settings_in(service["environment"])
    (application,) = yaml.safe_load((DEPLOY / "ray" / "config.yaml").read_text())["applications"]
    settings = settings_in(application["runtime_env"]["env_vars"])
    yield "ray", settings.memory_mib, settings


@pytest.mark.parametrize(("limit_mib", "settings"), [given[1:] for given in shipped_limits()], ids=lambda _: "")
def test_what_is_admitted_fits_the_memory_that_is_shipped(limit_mib, settings):
    """fault: service_memory_on_color. The formula, with more held by models than u2netp's largest engine holds."""
    settings = settings.model_copy(update={"memory_mib": limit_mib})
    held, limit = 600 * 2**20, limit_mib * 2**20
    photos = memory.for_photos(settings, held)
    assert held + photos + 3 * (memory.for_bodies(settings) + memory.STREAM_BYTES) <= limit
    assert memory.for_bodies(settings) >= settings.max_body_bytes
    room = memory.PhotoMemory(photos, places=16)
    for foreground in (False, True):
        options = SimpleNamespace(kind="rgba", refine=False, foreground=foreground)
        room.check(footprint.of_photo(int(settings.max_megapixels * 1e6), options, unpacked=True))


@pytest.mark.long
def test_the_image_s_install_serves_without_tensorflow(one_layer_dir, photo, tmp_path):
    """What the Dockerfile does, in a folder in place of a container."""
    build, image = stages(DOCKERFILES["Dockerfile"])
    context, venv, model = tmp_path / "src", tmp_path / "venv", tmp_path / "models" / "one_layer"
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line.startswith("!"):
            target = context / line[1:]
            target.parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if (ROOT / line[1:]).is_dir() else shutil.copy
            copy(ROOT / line[1:], target)
    (tmp_path / "python").symlink_to(Path(sys.executable).resolve())
    for name, rest in build:
        if name == "RUN":
            command = rest.replace("/opt/venv", str(venv)).replace("/src", str(context))
            path = f"{tmp_path}:{os.environ['PATH']}"
            subprocess.run(["bash", "-ec", command], check=True, env={**os.environ, "PATH": path}, timeout=1800)
    packages = subprocess.run(
        [venv / "bin" / "pip", "list"], capture_output=True, text=True, check=True, timeout=300
    ).stdout.lower()
    assert "onnxruntime" in packages
    assert not re.search(r"^(tensorflow|keras|torch|jax)\S* ", packages.replace("keras-matting ", ""), re.MULTILINE)

    model.mkdir(parents=True)
    for file in ("preset.json", "export.json", "model.onnx"):
        shutil.copy(one_layer_dir / file, model)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    variables = environment(image) | {"PATH": f"{venv}/bin", f"{PREFIX}MODELS": str(model)}
    variables |= {f"{PREFIX}PORT": str(port), f"{PREFIX}DRAIN_S": "0"}
    command, *arguments = json.loads(only(image, "ENTRYPOINT"))
    process = subprocess.Popen(
        [venv / "bin" / command, *arguments], env=variables, cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    server = Server(process)
    try:
        server.url = f"http://127.0.0.1:{port}"
        server.wait_until_ready()
        answer = httpx.post(f"{server.url}/v1/matte", content=encode(photo, ".jpg"))
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
        assert httpx.get(server.url).status_code == 200  # the page came along
        subprocess.run([venv / "bin" / "python", *health_command(image)[1:]], env=variables, check=True, timeout=300)
        assert server.terminate() == 0
        unhealthy = subprocess.run(
            [venv / "bin" / "python", *health_command(image)[1:]], env=variables, check=False, timeout=300
        )
        assert unhealthy.returncode != 0
    finally:
        server.end()
