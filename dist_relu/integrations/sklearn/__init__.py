"""Estimators of scikit-learn: `ReLUClassifier` and `ReLURegressor`, with the parameters of its MLPs.

    from dist_relu.integrations.sklearn import ReLUClassifier
    GridSearchCV(ReLUClassifier(n_workers=2), {"alpha": [1e-4, 1e-2]}).fit(X, y)

They need scikit-learn: pip install 'dist_relu[sklearn]'.
"""

try:
    import sklearn  # noqa: F401
except ImportError:
    raise ImportError(
        "dist_relu.integrations.sklearn needs scikit-learn. Install it: pip install 'dist_relu[sklearn]'."
    ) from None

from dist_relu.integrations.sklearn.classifier import ReLUClassifier
from dist_relu.integrations.sklearn.regressor import ReLURegressor

__all__ = ["ReLUClassifier", "ReLURegressor"]
