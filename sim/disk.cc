#include "sim/disk.h"

#include <utility>

namespace weft::sim {

SimDisk::SimDisk(Options options)
    : options_(std::move(options)),
      luck_(RandomStream::Derive(options_.seed, {"disk"})),
      flips_(RandomStream::Derive(options_.seed, {"flips"})),
      kept_({.post = [](std::function<void()> callback) { callback(); },
             .wall_us = options_.wall_us,
             .fault = {}}) {}

void SimDisk::Push(Write write) {
  if (options_.bug == DiskBug::kAcknowledgesEarly) {
    std::exchange(write.done, [](const Status&) {})(OkStatus());
  }
  under_way_.push_back(std::move(write));
  if (under_way_.size() > 1) return;  // one after the other
  options_.queue.At(options_.queue.now() + options_.write_time,
                    [this, life = life_] { Next(life); });
}

void SimDisk::Next(uint64_t life) {
  if (life != life_) return;
  if (options_.queue.now() < stalled_until_) {
    options_.queue.At(stalled_until_, [this, life] { Next(life); });
    return;
  }
  const Write write = std::move(under_way_.front());
  under_way_.pop_front();
  if (!under_way_.empty()) {
    options_.queue.At(options_.queue.now() + options_.write_time, [this, life] { Next(life); });
  }
  write.apply(kept_, write.done);
}

void SimDisk::Crash() {
  ++life_;
  const std::deque<Write> lost = std::exchange(under_way_, {});
  const size_t done = luck_.Below(lost.size() + 1);
  for (size_t i = 0; i < done; ++i) lost[i].apply(kept_, [](const Status&) {});
  if (done < lost.size() && lost[done].tear) lost[done].tear(kept_);
  const std::vector<std::string> spool = kept_.ListBlobs("spool/");
  if (options_.bug == DiskBug::kForgets && !spool.empty()) {
    kept_.RemoveBlob(spool.front(), [](const Status&) {});
  }
}

std::string SimDisk::FlipABit() {
  std::vector<std::string> files = kept_.ListBlobs("state/");
  if (files.size() > 1) files.erase(files.begin(), files.end() - 1);
  for (const char* folder : {"spool/", "update/"}) {
    for (std::string& name : kept_.ListBlobs(folder)) files.push_back(std::move(name));
  }
  std::erase_if(files, [this](const std::string& name) { return kept_.ReadBlob(name)->empty(); });
  if (files.empty()) return {};
  const std::string name = files[flips_.Below(files.size())];
  std::string bytes(kept_.ReadBlob(name)->view());
  const uint64_t at = flips_.Below(bytes.size() * 8);
  bytes[at / 8] = static_cast<char>(bytes[at / 8] ^ (1 << (at % 8)));
  kept_.WriteBlob(name, Blob::Adopt(std::move(bytes)), [](const Status&) {});
  return name;
}

void SimDisk::Append(std::vector<EventDraft> events, Done done) {
  Push({.apply = [events = std::move(events)](Store& store,
                                              Done then) { store.Append(events, std::move(then)); },
        .tear = {},
        .partial = {},
        .size = {},
        .done = std::move(done)});
}

void SimDisk::WriteBlob(std::string name, Blob bytes, Done done) {
  Push({.apply = [name = std::move(name), bytes = std::move(bytes)](
                     Store& store, Done then) { store.WriteBlob(name, bytes, std::move(then)); },
        .tear = {},  // written under another name and renamed
        .partial = {},
        .size = {},
        .done = std::move(done)});
}

void SimDisk::WritePartial(std::string name, uint64_t offset, Blob bytes, Done done) {
  // Drawn now, so that a crash does not depend on how often others crashed before.
  const size_t torn = luck_.Below(bytes.size() + 1);
  Push({.apply = [=](Store& store,
                     Done then) { store.WritePartial(name, offset, bytes, std::move(then)); },
        .tear =
            [=](Store& store) {
              store.WritePartial(name, offset, bytes.Slice(0, torn), [](const Status&) {});
            },
        .partial = name,
        .size = [offset, count = bytes.size()](
                    uint64_t before) { return before == offset ? before + count : before; },
        .done = std::move(done)});
}

void SimDisk::SealPartial(std::string name, uint64_t bytes, std::string sha256, Done done) {
  Push({.apply = [=](Store& store,
                     Done then) { store.SealPartial(name, bytes, sha256, std::move(then)); },
        .tear = {},
        .partial = name,
        .size = [](uint64_t) { return uint64_t{0}; },
        .done = std::move(done)});
}

uint64_t SimDisk::PartialBytes(const std::string& name) const {
  uint64_t bytes = kept_.PartialBytes(name);
  for (const Write& write : under_way_) {
    if (write.size && write.partial == name) bytes = write.size(bytes);
  }
  return bytes;
}

void SimDisk::RemoveBlob(std::string name, Done done) {
  Push({.apply = [=](Store& store, Done then) { store.RemoveBlob(name, std::move(then)); },
        .tear = {},
        .partial = name,
        .size = [](uint64_t) { return uint64_t{0}; },
        .done = std::move(done)});
}

}  // namespace weft::sim
