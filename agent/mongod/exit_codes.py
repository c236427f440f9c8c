"""What mongod's exit codes mean (measured with 6.0.5; a negative number is the signal that ended it)."""

from agent.failure import FailureCode, NodeFailure

EXIT_CODES: dict[int, tuple[FailureCode, str]] = {
    0: (FailureCode.MONGOD_START_FAILED, "mongod was stopped in order"),
    1: (FailureCode.MONGOD_START_FAILED, "mongod does not accept its keyfile or TLS certificate"),
    2: (FailureCode.MONGOD_START_FAILED, "mongod does not accept an option of its configuration"),
    14: (FailureCode.MONGOD_START_FAILED, "mongod met an error that it cannot recover from"),
    48: (FailureCode.MONGOD_START_FAILED, "mongod's port is in use"),
    62: (FailureCode.MONGOD_START_FAILED, "the data files are of another version than this mongod can read"),
    100: (FailureCode.VOLUME_UNUSABLE, "mongod's data directory is missing, not writable or locked by another mongod"),
    -6: (FailureCode.MONGOD_START_FAILED, "mongod aborted"),
    -9: (FailureCode.MONGOD_START_FAILED, "mongod was killed (out of memory?)"),
    -11: (FailureCode.MONGOD_START_FAILED, "mongod crashed"),
}
UNKNOWN = (FailureCode.MONGOD_START_FAILED, "mongod ended")


def start_failure(exit_code: int | None, *, out_of_space: bool, last_error: str) -> NodeFailure:
    """Why mongod did not come up. `last_error` is the last error line of its log, already redacted."""
    code, sentence = EXIT_CODES.get(exit_code, UNKNOWN) if exit_code is not None else UNKNOWN
    if out_of_space:
        code, sentence = FailureCode.DISK_FULL, "the data volume has no space left for mongod"
    detail = f": {last_error}" if last_error else ""
    ended = f" (exit code {exit_code})" if exit_code is not None else ""
    return NodeFailure(code, f"{sentence}{ended}{detail}", retryable=out_of_space)
