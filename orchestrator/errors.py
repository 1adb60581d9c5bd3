"""Every failure a person can cause, one class per *who must act*.

OrchestratorError
├── SpecError        the person who wrote the job: its fields contradict the recipe or one another
├── DatasetError     the person who chose the pictures
├── JobError         the person who watches jobs: a job failed, is missing, or is in the way
│   └── JobExistsError
└── MachineError     the person who owns this machine: disk, memory, missing packages

Each carries what happened, why, and the next command to type; `__main__` prints them and nothing else does.
"""

from collections.abc import Sequence

from orchestrator.contract.problem import Problem


class OrchestratorError(Exception):
    """A failure with its cause and the next thing to type."""

    exit_code = 1

    def __init__(self, message: str, *, next_step: str = "", problems: Sequence[Problem] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step
        self.problems = tuple(problems)

    def render(self) -> str:
        """Return the text a person reads: the cause, each problem on a line of its own, the next command."""
        lines = [self.message, *(f"  - {problem.render()}" for problem in self.problems)]
        if self.next_step:
            lines.append(f"Next: {self.next_step}")
        return "\n".join(lines)


class SpecError(OrchestratorError):
    """The job as written cannot run; nothing was started."""

    exit_code = 2


class DatasetError(OrchestratorError):
    """The pictures cannot be trained on; nothing was started."""

    exit_code = 3


class JobError(OrchestratorError):
    """A job failed, does not exist, or stands in the way of another."""

    exit_code = 4


class JobExistsError(JobError):
    """There is a job of that name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"The job {name} exists.", next_step=f"python -m orchestrator jobs show {name}")


class MachineError(OrchestratorError):
    """This machine lacks something: disk, memory, a package."""

    exit_code = 5
