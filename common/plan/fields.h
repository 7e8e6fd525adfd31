#pragma once
// The field lists of the plan's structs: the one place that says what their JSON looks like. See
// json_fields.h for how they are used and json.h for the plain functions.

#include "common/plan/adapter_spec.h"
#include "common/plan/certificate.h"
#include "common/plan/json_fields.h"
#include "common/plan/round_plan.h"

namespace weft {

template <typename V, FieldsOf<AdapterSpec> S>
void VisitFields(V& visit, S& spec) {
  visit.Required("method", spec.method);
  visit.Required("rank", spec.rank);
  visit.Required("alpha", spec.alpha);
  visit.Optional("rslora", spec.rslora);
  visit.Optional("dropout", spec.dropout);
  visit.Optional("target_modules", spec.target_modules);
  visit.Optional("target_regex", spec.target_regex);
  visit.Optional("exclude_modules", spec.exclude_modules);
  visit.Optional("layers_to_transform", spec.layers_to_transform);
  visit.Optional("layers_pattern", spec.layers_pattern);
  visit.Optional("rank_pattern", spec.rank_pattern);
  visit.Optional("alpha_pattern", spec.alpha_pattern);
  visit.Optional("modules_to_save", spec.modules_to_save);
  visit.Optional("labels", spec.labels);
  visit.Optional("options", spec.options);
}

template <typename V, FieldsOf<LocalTraining> S>
void VisitFields(V& visit, S& training) {
  visit.Required("objective", training.objective);
  visit.Optional("fedprox_mu", training.fedprox_mu);
  visit.Required("local_steps", training.local_steps);
  visit.Required("local_epochs", training.local_epochs);
  visit.Required("batch_size", training.batch_size);
  visit.Optional("micro_batch_size", training.micro_batch_size);
  visit.Optional("max_len", training.max_len);
  visit.Optional("packing", training.packing);
  visit.Optional("row_order", training.row_order);
  visit.Optional("long_rows", training.long_rows);
  visit.Optional("dtype", training.dtype);
  visit.Optional("gradient_checkpointing", training.gradient_checkpointing);
  visit.Required("optimizer", training.optimizer);
  visit.Required("lr", training.lr);
  visit.Optional("beta1", training.beta1);
  visit.Optional("beta2", training.beta2);
  visit.Optional("eps", training.eps);
  visit.Optional("weight_decay", training.weight_decay);
  visit.Optional("grad_clip", training.grad_clip);
  visit.Optional("schedule", training.schedule);
  visit.Optional("warmup_steps", training.warmup_steps);
  visit.Optional("schedule_steps", training.schedule_steps);
  visit.Optional("steps_done", training.steps_done);
  visit.Optional("keep_optimizer", training.keep_optimizer);
}

template <typename V, FieldsOf<ClientPlan> S>
void VisitFields(V& visit, S& plan) {
  visit.Required("client", plan.client);
  visit.Required("adapter", plan.adapter);
  visit.Optional("merged", plan.merged);
  visit.Optional("asked", plan.asked);
}

template <typename V, FieldsOf<RoundPlan> S>
void VisitFields(V& visit, S& plan) {
  visit.Required("run", plan.run);
  visit.Required("round", plan.round);
  visit.Required("version", plan.version);
  visit.Required("num_server_rounds", plan.num_server_rounds);
  visit.Required("base_hash", plan.base_hash);
  visit.Required("seed", plan.seed);
  visit.Required("strategy", plan.strategy);
  visit.Required("codec", plan.codec);
  visit.Required("training", plan.training);
  visit.Required("cohort", plan.cohort);
  visit.Optional("evaluators", plan.evaluators);
  visit.Required("deadline_s", plan.deadline_s);
  visit.Optional("delta", plan.delta);
  visit.Optional("top_k", plan.top_k);
  visit.Optional("error_feedback", plan.error_feedback);
  visit.Optional("compress", plan.compress);
  visit.Optional("down_codec", plan.down_codec);
  visit.Optional("max_staleness", plan.max_staleness);
  visit.Optional("staleness_exponent", plan.staleness_exponent);
}

template <typename V, FieldsOf<PhaseTimes> S>
void VisitFields(V& visit, S& times) {
  visit.Optional("wait_s", times.wait_s);
  visit.Optional("download_s", times.download_s);
  visit.Optional("train_s", times.train_s);
  visit.Optional("upload_s", times.upload_s);
  visit.Optional("evaluate_s", times.evaluate_s);
}

template <typename V, FieldsOf<UpdateHeader> S>
void VisitFields(V& visit, S& header) {
  visit.Required("run", header.run);
  visit.Required("round", header.round);
  visit.Required("client", header.client);
  visit.Required("version", header.version);
  visit.Required("base_hash", header.base_hash);
  visit.Required("spec", header.spec);
  visit.Required("codec", header.codec);
  visit.Required("num_examples", header.num_examples);
  visit.Required("label_tokens", header.label_tokens);
  visit.Required("steps", header.steps);
  visit.Required("train_loss", header.train_loss);
  visit.Optional("metrics", header.metrics);
  visit.Optional("times", header.times);
  visit.Required("payload_bytes", header.payload_bytes);
  visit.Required("payload_sha256", header.payload_sha256);
}

template <typename V, FieldsOf<Capabilities> S>
void VisitFields(V& visit, S& offer) {
  visit.Required("software", offer.software);
  visit.Required("device", offer.device);
  visit.Optional("memory_mb", offer.memory_mb);
  visit.Required("rank_max", offer.rank_max);
  visit.Required("num_examples", offer.num_examples);
  visit.Optional("eval_examples", offer.eval_examples);
  visit.Required("methods", offer.methods);
  visit.Required("codecs", offer.codecs);
  visit.Optional("members", offer.members);
}

template <typename V, FieldsOf<EvalReport> S>
void VisitFields(V& visit, S& report) {
  visit.Required("run", report.run);
  visit.Required("version", report.version);
  visit.Required("client", report.client);
  visit.Required("loss", report.loss);
  visit.Required("label_tokens", report.label_tokens);
  visit.Optional("num_examples", report.num_examples);
  visit.Optional("evaluate_s", report.evaluate_s);
}

template <typename V, FieldsOf<Certificate::Site> S>
void VisitFields(V& visit, S& site) {
  visit.Required("path", site.path);
  visit.Required("error_before_truncation", site.error_before_truncation);
  visit.Required("error_published", site.error_published);
  visit.Optional("error_to_ideal", site.error_to_ideal);
  visit.Optional("tail_energy", site.tail_energy);
  visit.Optional("effective_rank", site.effective_rank);
  visit.Required("rank", site.rank);
}

template <typename V, FieldsOf<Certificate> S>
void VisitFields(V& visit, S& certificate) {
  visit.Required("target_norm", certificate.target_norm);
  visit.Required("error_before_truncation", certificate.error_before_truncation);
  visit.Required("error_published", certificate.error_published);
  visit.Optional("error_to_ideal", certificate.error_to_ideal);
  visit.Optional("tail_energy", certificate.tail_energy);
  visit.Optional("error_codec", certificate.error_codec);
  visit.Optional("effective_rank", certificate.effective_rank);
  visit.Required("rank", certificate.rank);
  visit.Optional("sites", certificate.sites);
  visit.Optional("client_norms", certificate.client_norms);
  visit.Optional("client_cosines", certificate.client_cosines);
  visit.Optional("error_rule", certificate.error_rule);
  visit.Optional("energy_by_rank", certificate.energy_by_rank);
  visit.Optional("client_coefficients", certificate.client_coefficients);
  visit.Optional("client_remarks", certificate.client_remarks);
  visit.Optional("notes", certificate.notes);
}

}  // namespace weft
