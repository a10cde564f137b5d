// translate_ncnn G_fp32.ncnn.param G_fp32.ncnn.bin IN.ppm OUT.ppm
#include <cstdio>

#include "net.h"
#include "picture.h"

int main(int argc, char **argv) try {
  if (argc != 5) throw std::runtime_error("usage: translate_ncnn PARAM BIN IN.ppm OUT.ppm");
  ncnn::Net net;
  net.opt.num_threads = 1;
  if (net.load_param(argv[1]) || net.load_model(argv[2])) throw std::runtime_error("the generator cannot be read");
  Picture picture(argv[3]);
  ncnn::Mat planes(picture.width, picture.height, 3), output;  // a Mat pads its planes: copied one by one
  for (int colour = 0; colour < 3; colour++)
    std::copy_n(picture.planes.data() + colour * picture.size(), picture.size(), (float *)planes.channel(colour));
  ncnn::Extractor extractor = net.create_extractor();
  extractor.input("in0", planes);
  if (extractor.extract("out0", output)) throw std::runtime_error("the generator does not run on this size");
  std::vector<float> values(size_t(3) * output.w * output.h);
  for (int colour = 0; colour < 3; colour++)
    std::copy_n((const float *)output.channel(colour), output.w * output.h,
                values.data() + size_t(colour) * output.w * output.h);
  write(argv[4], values.data(), output.w, output.h);
} catch (const std::exception &error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 2;
}
