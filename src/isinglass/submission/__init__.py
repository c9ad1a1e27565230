"""The zip that https://gluebenchmark.com takes: written from the predictions of a bench, or checked, whatever tool made it.

At the root of the zip lie eleven files. Each has a header and one row for each row of a test set:

    index   prediction        tab-separated
    0       entailment        words: MNLI-m, MNLI-mm, AX, QNLI, RTE
    1       not_entailment    `0` or `1`: CoLA, SST-2, MRPC, QQP, WNLI; a number from 0 to 5: STS-B

`write` uses the checks of `check`, so that the two cannot disagree.
"""
