#include <jni.h>

#include <algorithm>
#include <string>
#include <vector>

#include "net.h"

namespace {

std::string text(JNIEnv *env, jstring string) {
  const char *characters = env->GetStringUTFChars(string, nullptr);
  std::string copy(characters);
  env->ReleaseStringUTFChars(string, characters);
  return copy;
}

}  // namespace

extern "C" JNIEXPORT jlong JNICALL Java_org_coronet_translate_Generator_load(JNIEnv *env, jobject, jstring param,
                                                                             jstring bin) {
  auto *net = new ncnn::Net;
  net->opt.num_threads = 4;
  if (!net->load_param(text(env, param).c_str()) && !net->load_model(text(env, bin).c_str()))
    return reinterpret_cast<jlong>(net);
  delete net;
  return 0;
}

extern "C" JNIEXPORT jfloatArray JNICALL Java_org_coronet_translate_Generator_run(JNIEnv *env, jobject, jlong net,
                                                                                  jfloatArray planes, jint size) {
  const int area = size * size;
  ncnn::Mat input(size, size, 3), output;  // a Mat pads its planes: copied one by one
  for (int colour = 0; colour < 3; colour++)
    env->GetFloatArrayRegion(planes, colour * area, area, (float *)input.channel(colour));
  ncnn::Extractor extractor = reinterpret_cast<ncnn::Net *>(net)->create_extractor();
  extractor.input("in0", input);
  if (extractor.extract("out0", output) || output.w * output.h != area) return nullptr;
  jfloatArray result = env->NewFloatArray(3 * area);
  for (int colour = 0; result && colour < 3; colour++)
    env->SetFloatArrayRegion(result, colour * area, area, (const float *)output.channel(colour));
  return result;
}
