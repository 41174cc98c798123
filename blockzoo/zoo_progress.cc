#include "blockzoo/zoo_progress.h"

#include <unistd.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "blockzoo/zoo_io.h"

namespace tessera::blockzoo {
namespace {

constexpr size_t kBarWidth = 24;

std::string LeftText(double seconds) {
  const auto whole = static_cast<int64_t>(std::min(seconds, 359999.0) + 0.5);
  if (whole >= 3600) {
    return absl::StrFormat("%d:%02d:%02d left", whole / 3600, whole / 60 % 60, whole % 60);
  }
  return absl::StrFormat("%d:%02d left", whole / 60, whole % 60);
}

std::string AmountText(uint64_t amount, ProgressUnit unit) {
  return unit == ProgressUnit::kBytes ? BytesText(amount) : absl::StrCat(amount, " tokens");
}

}  // namespace

ProgressStyle ProgressStyleOf(std::FILE* stream) {
  return isatty(fileno(stream)) == 1 ? ProgressStyle::kBar : ProgressStyle::kLines;
}

std::string ProgressLine(const std::string& title, uint64_t done, uint64_t total, double seconds,
                         ProgressStyle style, ProgressUnit unit) {
  const double share =
      total == 0 ? 1.0 : static_cast<double>(std::min(done, total)) / static_cast<double>(total);
  const double rate = seconds > 0 ? static_cast<double>(done) / seconds : 0;
  std::string bar;
  if (style == ProgressStyle::kBar) {
    const auto filled = static_cast<size_t>(share * kBarWidth);
    bar = absl::StrCat("[", std::string(filled, '#'), std::string(kBarWidth - filled, '.'), "]  ");
  }
  std::string line =
      absl::StrFormat("%s  %s%3d%%  %s of %s", title, bar, static_cast<int>(share * 100),
                      AmountText(done, unit), AmountText(total, unit));
  if (rate > 0) {
    absl::StrAppend(&line, "  ", AmountText(static_cast<uint64_t>(rate), unit), "/s");
    if (done < total) {
      absl::StrAppend(&line, "  ", LeftText(static_cast<double>(total - done) / rate));
    }
  }
  return line;
}

ProgressPrinter::ProgressPrinter(std::string title, std::FILE* stream, ProgressStyle style,
                                 const Clock& clock, ProgressUnit unit)
    : title_(std::move(title)),
      stream_(stream),
      style_(style),
      unit_(unit),
      clock_(clock),
      start_(clock.Now()),
      last_(start_) {}

ProgressPrinter::~ProgressPrinter() {
  if (drawn_) std::fputs("\n", stream_);
}

void ProgressPrinter::Update(uint64_t done, uint64_t total) {
  const TimePoint now = clock_.Now();
  const Duration pause = style_ == ProgressStyle::kBar ? Duration(std::chrono::milliseconds(100))
                                                       : Duration(std::chrono::seconds(3));
  // The end of a bar is always drawn.
  const bool finished = drawn_ && done >= total;
  if (now - last_ < pause && !finished) return;
  last_ = now;
  const double seconds = std::chrono::duration<double>(now - start_).count();
  const std::string line = ProgressLine(title_, done, total, seconds, style_, unit_);
  if (style_ == ProgressStyle::kBar) {
    std::fprintf(stream_, "\r%s\x1b[K", line.c_str());
    drawn_ = true;
  } else {
    std::fprintf(stream_, "%s\n", line.c_str());
  }
  std::fflush(stream_);
}

}  // namespace tessera::blockzoo
