"""What MLflow runs to load a logged network; a copy of this file lies beside the weights."""

from mlflow.models import set_model  # pyright: ignore[reportUnknownVariableType]

from robustray.tracking.classifier import LoggedClassifier

set_model(LoggedClassifier())
