// What differs from layer to layer: windows of attention, and layers without rotation.
#pragma once

#include "blockzoo/import/decoder.h"

namespace tessera::blockzoo {

// Fills `decoder.layers` with the windows of the settings. Where a file does not say which layers
// have one, each but every `period`-th has (0: all). A window that hides nothing is left out.
// Nothing is changed when there is none.
[[nodiscard]] Status ReadWindows(int64_t period, SettingsReader& read, Decoder& decoder);

// Marks a window that hides nothing (at least as long as the context, or switched off) as read.
[[nodiscard]] Status HonourIdleWindow(SettingsReader& read, const DecoderShape& shape);

}  // namespace tessera::blockzoo
