// Pictures as the generators take and give them: planes of red, green and blue, each number from -1 to 1.
// Files are PPM (P6), which every picture program writes: convert IN.png IN.ppm.
#pragma once

#include <algorithm>
#include <cmath>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

struct Picture {
  int width = 0, height = 0;
  std::vector<float> planes;  // 3 * height * width

  explicit Picture(const std::string &path) {
    std::ifstream file(path, std::ios::binary);
    std::string magic;
    int largest = 0;
    file >> magic >> width >> height >> largest;
    file.get();
    if (!file || magic != "P6" || largest != 255) throw std::runtime_error(path + " is no PPM file (P6, 255)");
    std::vector<unsigned char> bytes(3 * size());
    file.read(reinterpret_cast<char *>(bytes.data()), bytes.size());
    if (!file) throw std::runtime_error(path + " ends too early");
    planes.resize(bytes.size());
    for (size_t i = 0; i < size(); i++)
      for (size_t colour = 0; colour < 3; colour++) planes[colour * size() + i] = bytes[3 * i + colour] / 127.5f - 1;
  }

  size_t size() const { return size_t(width) * height; }
};

inline void write(const std::string &path, const float *planes, int width, int height) {
  size_t size = size_t(width) * height;
  std::vector<unsigned char> bytes(3 * size);
  for (size_t i = 0; i < size; i++)
    for (size_t colour = 0; colour < 3; colour++)
      bytes[3 * i + colour] = std::clamp(std::lround((planes[colour * size + i] + 1) * 127.5f), 0l, 255l);
  std::ofstream file(path, std::ios::binary);
  file << "P6\n" << width << " " << height << "\n255\n";
  file.write(reinterpret_cast<const char *>(bytes.data()), bytes.size());
  if (!file) throw std::runtime_error(path + " cannot be written");
}
