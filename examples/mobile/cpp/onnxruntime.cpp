// translate_onnxruntime G_fp32.onnx IN.ppm OUT.ppm
#include <onnxruntime_cxx_api.h>

#include <array>
#include <cstdio>

#include "picture.h"

int main(int argc, char **argv) try {
  if (argc != 4) throw std::runtime_error("usage: translate_onnxruntime G.onnx IN.ppm OUT.ppm");
  Ort::Env env;
  Ort::SessionOptions options;
  options.SetIntraOpNumThreads(1);
  Ort::Session session(env, argv[1], options);
  Picture picture(argv[2]);
  std::array<int64_t, 4> shape{1, 3, picture.height, picture.width};
  auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  auto &planes = picture.planes;
  auto input = Ort::Value::CreateTensor<float>(memory, planes.data(), planes.size(), shape.data(), shape.size());
  const char *inputs[] = {"input"}, *outputs[] = {"output"};
  auto result = session.Run({}, inputs, &input, 1, outputs, 1);
  auto found = result[0].GetTensorTypeAndShapeInfo().GetShape();
  write(argv[3], result[0].GetTensorData<float>(), int(found[3]), int(found[2]));
} catch (const std::exception &error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 2;
}
