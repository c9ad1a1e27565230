"""Five-fold cross-validation of a fine-tuned model, by scikit-learn: python examples/cross_validation.py"""

from sklearn.model_selection import cross_val_score

from isinglass import TextClassifier

GOOD = [
    "Works like a charm.",
    "I would buy it again.",
    "Exactly what I needed.",
    "Light, quiet and well made.",
    "A joy to use.",
]
POOR = ["It broke on the first day.", "A waste of money.", "Far too loud.", "The lid never closed.", "I sent it back."]

if __name__ == "__main__":
    texts, labels = [*GOOD, *POOR], ["good"] * len(GOOD) + ["poor"] * len(POOR)
    model = TextClassifier(recipe="small", epochs=2, batch_size=4)
    scores = cross_val_score(model, texts, labels, cv=5)
    print(f"accuracy in each fold: {', '.join(f'{score:.2f}' for score in scores)}; mean {scores.mean():.2f}")
