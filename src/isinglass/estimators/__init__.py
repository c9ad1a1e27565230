"""Fine-tuning in the manner of scikit-learn: `TextClassifier`, `TextRegressor`, and `load` for a run that was saved.

    from isinglass import TextClassifier, load

    classifier = TextClassifier(epochs=2, max_length=64).fit(["good", "bad", "fine", "poor"], [1, 0, 1, 0])
    classifier.predict(["nice"])              # array([1])
    classifier.predict_proba(["nice"])        # float64 (1, 2), columns as in classifier.classes_
    load("runs/x").predict(["nice"])          # what `isinglass train` or `classifier.save` wrote

X is N texts, or N pairs of texts: a list, an array of NumPy, a Series or DataFrame of pandas or polars, an array or table of
Arrow. Pairs are tuples of two, or two columns. All of y is trained on, unless a share is held out to find the best epoch.

Both work in pipelines, cross-validation, searches, `clone` and pickles. They pass scikit-learn's own checks
(`check_estimator`) but for these, which make no sense for texts:

    n_features_in_, feature names,   a text has no columns that could be counted or named
      "0 feature(s)" in a message
    X of numbers, sparse, complex,   refused: such X is a mistake here, whatever its shape
      NaN, infinite, of one dtype
      or another
    X of one dimension is refused    a list of texts has one dimension
    accuracy on blobs, R^2 on        they test how well points are told apart, by an estimator that converges in an instant;
      numbers, class weights         the tests of this package train on texts
    sample_weight                    not a parameter of fit: a step is a number of examples, each weighted by its class
    partial_fit, n_iter_             a fit is one complete run: its warm-up and decay need to know where the end is
"""
