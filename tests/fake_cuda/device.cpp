// Tells a CPU build of torch that the machine has one CUDA device, and keeps track of page-locked memory.
// Must be loaded before torch is imported.
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <iterator>
#include <map>
#include <mutex>

namespace {

constexpr auto CUDA = c10::DeviceType::CUDA;

// Ordinary memory that counts as page-locked until it is freed.
struct PageLocked final : c10::Allocator {
  std::map<const char*, size_t> blocks;  // begin of each, and how many bytes it has
  std::mutex mutex;

  static PageLocked& only() {
    static auto* made = new PageLocked;  // never destroyed: tensors may outlive it
    return *made;
  }
  c10::DataPtr allocate(size_t bytes) override {
    void* begin = c10::GetCPUAllocator()->raw_allocate(bytes);
    const std::lock_guard<std::mutex> guard(mutex);
    blocks[static_cast<const char*>(begin)] = bytes;
    return {begin, begin, &release, c10::Device(c10::DeviceType::CPU)};
  }
  static void release(void* begin) {
    const std::lock_guard<std::mutex> guard(only().mutex);
    only().blocks.erase(static_cast<const char*>(begin));
    c10::GetCPUAllocator()->raw_deallocate(begin);
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, size_t bytes) const override { default_copy_data(to, from, bytes); }
  bool holds(const void* data) {
    const std::lock_guard<std::mutex> guard(mutex);
    auto after = blocks.upper_bound(static_cast<const char*>(data));
    if (after == blocks.begin()) return false;
    const auto& [begin, bytes] = *std::prev(after);
    return static_cast<const char*>(data) < begin + bytes;
  }
};

// No kernel is ever launched: whoever asks for the device or its stream gets number 0.
struct Guard final : c10::impl::NoOpDeviceGuardImpl<CUDA> {
  static c10::Device device() { return {CUDA, 0}; }
  static c10::Stream stream() { return c10::Stream(c10::Stream::DEFAULT, device()); }
  c10::Device exchangeDevice(c10::Device) const override { return device(); }
  c10::Device getDevice() const override { return device(); }
  c10::Stream getStream(c10::Device) const noexcept override { return stream(); }
  c10::Stream getDefaultStream(c10::Device) const override { return stream(); }
  c10::Stream exchangeStream(c10::Stream) const noexcept override { return stream(); }
};

Guard guard;
c10::impl::DeviceGuardImplRegistrar registrar(CUDA, &guard);

}  // namespace

namespace at {

struct FakeHooks final : CUDAHooksInterface {
  explicit FakeHooks(CUDAHooksArgs) {}
  void init() const override {}
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasCUDA() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  DeviceIndex deviceCount() const override { return 1; }
  DeviceIndex getCurrentDevice() const override { return 0; }
  DeviceIndex current_device() const override { return 0; }
  bool isPinnedPtr(const void* data) const override { return PageLocked::only().holds(data); }
  Allocator* getPinnedMemoryAllocator() const override { return &PageLocked::only(); }
};

C10_REGISTER_CLASS(CUDAHooksRegistry, CUDAHooks, FakeHooks)

}  // namespace at
