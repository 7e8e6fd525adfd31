// The one table of `weft` commands; a new command is one file and one line here.

#include <array>

#include "cli/command.h"
#include "cli/set_up.h"

namespace weft::cli {
namespace {

constexpr std::array kCommands = {
    Command{"init", "write a federation's files: server, keys, one join file per site", SetUpInit},
    Command{"init-relay",
            "write a relay's files from its join file, one join file per site of its own",
            SetUpInitRelay},
    Command{"train", "train one site alone: an adapter, or with --full the whole model",
            SetUpTrain},
    Command{"eval", "loss and perplexity of a model on a data file", SetUpEval},
    Command{"edit", "teach a model new answers, and measure what else changed", SetUpEdit},
    Command{"laplace fit", "measure how sure an adapter may be, on a site's rows", SetUpLaplaceFit},
    Command{"laplace federate", "add up the statistics of several sites", SetUpLaplaceFederate},
    Command{"laplace predict", "classes averaged over the posterior, and their calibration",
            SetUpLaplacePredict},
    Command{"generate", "continue a prompt", SetUpGenerate},
    Command{"tokenize", "JSONL {\"text\"} on stdin to arrays of ids", SetUpTokenize},
    Command{"adapter inspect", "what an adapter is: layers, ranks, norms", SetUpAdapterInspect},
    Command{"adapter export", "a run's or block's adapter as a PEFT folder", SetUpAdapterExport},
    Command{"adapter import", "a PEFT folder as an adapter block", SetUpAdapterImport},
    Command{"adapter merge", "fold an adapter into its model, as a model folder",
            SetUpAdapterMerge},
    Command{"bench train", "time training steps of an adapter method", SetUpBenchTrain},
    Command{"bench count", "what a method trains and ships on a model's shapes", SetUpBenchCount},
    Command{"bench merge", "time the merge of one round", SetUpBenchMerge},
    Command{"bench load", "an aggregator's memory and latency under thousands of members",
            SetUpBenchLoad},
    Command{"bench round", "time rounds without training over CURVE", SetUpBenchRound},
    Command{"keys new", "make a CURVE key pair", SetUpKeysNew},
    Command{"keys show", "print the public key of a key file", SetUpKeysShow},
    Command{"keys allow", "put a site's public key on the allow-list", SetUpKeysAllow},
    Command{"keys revoke", "take a site off the allow-list", SetUpKeysRevoke},
    Command{"keys list", "the sites on the allow-list", SetUpKeysList},
    Command{"runs list", "the runs at or below a folder", SetUpRunsList},
    Command{"runs show", "one run and its members", SetUpRunsShow},
    Command{"runs rounds", "the rounds of a run, or each client's part in them", SetUpRunsRounds},
    Command{"runs tail", "the newest events of a run, and those that follow", SetUpRunsTail},
    Command{"runs diff", "two runs round by round: where they part, and by how much",
            SetUpRunsDiff},
    Command{"runs verify", "prove that a run folder is what its ledger says", SetUpRunsVerify},
    Command{"runs export", "a run as CSV or JSON lines", SetUpRunsExport},
    Command{"runs stop", "ask a run's aggregator to end it", SetUpRunsStop},
    Command{"runs repair", "cut a damaged ledger before its first bad row", SetUpRunsRepair},
    Command{"runs resume", "go on with a run from its folder", SetUpRunsResume},
    Command{"config show", "the settings in effect", SetUpConfigShow},
    Command{"config reference", "every setting, as docs/configuration.md", SetUpConfigReference},
    Command{"version", "print the versions of Weft and its parts", SetUpVersion},
};

}  // namespace

std::span<const Command> Commands() { return kCommands; }

}  // namespace weft::cli
