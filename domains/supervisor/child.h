// A command under way: `xl create FILE`. What it says goes to standard error as it comes; its last line is kept.
//
// Threads: the loop's.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "ring/fd.h"
#include "ring/loop.h"

namespace caisson::supervisor {

class Child {
  public:
    struct Ended {
        int code = 0;  // 128 + N when signal N ended it
        std::string last_words;
    };
    // `ended` is called once, and may destroy the Child. One that takes longer than `patience` is killed.
    static Result<Child> start(Loop& loop, const std::vector<std::string>& arguments, Loop::Clock::duration patience,
                               std::function<void(const Ended&)> ended);

  private:
    struct Running;
    explicit Child(std::shared_ptr<Running> running) : running_(std::move(running)) {}
    std::shared_ptr<Running> running_;
};

}  // namespace caisson::supervisor
