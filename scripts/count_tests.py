"""Counts the tests in a runner's output on stdin: `count_tests.py STATUS` prints "passed failed skipped".

Knows the closing lines of cargo test, pytest, surefire and `go test -v`. A stage that failed (STATUS not 0) without a
failed test, such as a compile error, counts as one failure; a stage that is no test runner counts as one pass.
"""

import re
import sys


def count(status: int, text: str) -> tuple[int, int, int]:
    passed = failed = skipped = 0
    # cargo test, one line per test binary
    for p, f, i in re.findall(r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored", text, re.M):
        passed, failed, skipped = passed + int(p), failed + int(f), skipped + int(i)
    # pytest: "== 3 failed, 40 passed, 1 skipped in 12.3s =="
    for line in re.findall(r"^=+ (.*\d+ (?:passed|failed|error).*) in [\d.]+s", text, re.M):
        for n, word in re.findall(r"(\d+) (passed|failed|errors?|skipped|xfailed|xpassed)", line):
            passed += int(n) if word in ("passed", "xpassed") else 0
            failed += int(n) if word in ("failed", "error", "errors") else 0
            skipped += int(n) if word in ("skipped", "xfailed") else 0
    # surefire: the line without a class name is the sum
    for t, f, e, s in re.findall(r"Tests run: (\d+), Failures: (\d+), Errors: (\d+), Skipped: (\d+)\s*$", text, re.M):
        bad = int(f) + int(e)
        passed, failed, skipped = passed + int(t) - bad - int(s), failed + bad, skipped + int(s)
    # go test -v, top-level tests only
    for word in re.findall(r"^--- (PASS|FAIL|SKIP): ", text, re.M):
        passed, failed, skipped = passed + (word == "PASS"), failed + (word == "FAIL"), skipped + (word == "SKIP")
    # What a stage of this project prints when it leaves something out.
    skipped += len(re.findall(r"^(?:seracdb: )?SKIPPED", text, re.M))
    if status != 0 and failed == 0:
        failed = 1
    if status == 0 and passed + failed + skipped == 0:
        passed = 1
    return passed, failed, skipped


if __name__ == "__main__":
    print(*count(int(sys.argv[1]), sys.stdin.read()))
