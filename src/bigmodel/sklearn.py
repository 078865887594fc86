"""Estimators of scikit-learn, under the name that users import."""

from bigmodel.api.estimators import Classifier, Regressor

__all__ = ["Classifier", "Regressor"]
