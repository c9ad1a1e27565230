"""The zip that https://gluebenchmark.com takes: written from the predictions of a bench, or checked, whoever made it."""

from isinglass.submission.checking import Problem, check_submission
from isinglass.submission.writing import Submission, SubmittedFile, write_submission

__all__ = ["Problem", "Submission", "SubmittedFile", "check_submission", "write_submission"]
