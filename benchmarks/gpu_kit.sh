#!/usr/bin/env bash
# TF-TRT, TensorRT 8.5 and ONNX Runtime for a GPU machine without a network: a Python that runs wherever it is unpacked,
# in parts small enough to carry. On the machine (gpu.md) it is called by the script kitpy.
# usage: benchmarks/gpu_kit.sh OUT_DIR PYTHON310_PREFIX     (5 GB of scratch under OUT_DIR)
set -euo pipefail
out=$(mkdir -p "$1" && cd "$1" && pwd)
prefix=$2
kit=$out/kit
site=$kit/python/lib/python3.10/site-packages
rm -rf "$kit" "$out"/part_*
mkdir -p "$kit"
cp -r "$prefix" "$kit/python"
rm -rf "$kit"/python/lib/python3.10/{test,config-*} "$kit"/python/lib/libpython3.10.a "$kit"/python/{include,share} "${site:?}"/*
"$prefix/bin/python3.10" -m pip install --quiet --target "$site" --no-compile --only-binary=:all: \
  'numpy<2' 'protobuf<5' tensorflow==2.14.1 tensorrt==8.5.3.1 onnxruntime-gpu==1.14.1 \
  nvidia-cublas-cu11==11.11.3.6 nvidia-cudnn-cu11==8.7.0.84 nvidia-cuda-runtime-cu11==11.8.89 nvidia-cuda-nvrtc-cu11==11.8.89
cd "$site"
rm -rf nvidia/cudnn/lib/libcudnn_adv_* nvidia/cudnn/lib/libcudnn_*_train* nvidia/*/include tensorflow/include clang \
  tensorboard_data_server bin

# Matting calls nothing of these four. TensorFlow drops all GPUs if it cannot open them, and ONNX Runtime binds four names
# of cuFFT when it loads; each answers with CUFFT_INTERNAL_ERROR, so that a call would be seen.
stubs=nvidia/stubs/lib
mkdir -p $stubs
names='cufftCreate cufftSetStream cufftXtExec cufftXtMakePlanMany'
for name in $names; do echo "int $name() { return 5; }"; done >fft.c
echo 'libcufft.so.10 { global: *; };' >fft.map
gcc -shared -fPIC -Wl,-soname,libcufft.so.10 -Wl,--version-script=fft.map -o $stubs/libcufft.so.10 fft.c
echo 'int stub_only;' >none.c
for so in libcurand.so.10 libcusolver.so.11 libcusparse.so.11; do
  gcc -shared -fPIC -Wl,-soname,$so -o $stubs/$so none.c
done
rm fft.c fft.map none.c

find "$kit" -name __pycache__ -prune -exec rm -rf {} +
[ -n "${KIT_UNPACKED:-}" ] && exit # to look at it
export XZ_OPT=${XZ_OPT:--2 -T0} # each part costs a call on that machine; -0 is quicker here
tar -C "$kit" -cf - python | xz -q | split -b 60000000 -d - "$out/part_"
rm -rf "$kit"
ls -l "$out"/part_*
