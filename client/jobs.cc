#include "client/jobs.h"

#include "common/crypto/digest.h"

namespace weft {

UpdateHeader HeaderOf(const TrainJob& job, const Blob& payload) {
  UpdateHeader header;
  header.run = job.plan.run;
  header.round = job.plan.round;
  header.client = job.client;
  header.version = job.plan.version;
  header.base_hash = job.plan.base_hash;
  header.codec = job.plan.codec;
  header.payload_bytes = payload.size();
  header.payload_sha256 = Sha256Hex(payload.span());
  return header;
}

}  // namespace weft
