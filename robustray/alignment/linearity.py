"""The linearity study: whether the closest class of the linearised network is the attack's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from robustray.alignment.cosine import alignment
from robustray.alignment.distances import class_distances, closest_class


def linearity_table(
    logits_BK: Tensor,
    jacobian_BK: Tensor,
    y_B: Tensor,
    delta_x_BK: Tensor,
    attacked: Mapping[float, Tensor],
) -> pd.DataFrame:
    """Return one row for each example, with the columns in the published order.

    Parameters
    ----------
    logits_BK, jacobian_BK : Tensor
        As ``jacobian`` returns them.
    y_B : Tensor
        Labels, int64 (B,).
    delta_x_BK : Tensor
        Delta-x towards each class (B, K, ...).
    attacked : mapping of float to Tensor
        For each epsilon, in the order of the columns, the classes predicted after the attack,
        int64 (B,).

    Returns
    -------
    DataFrame
        ``closest_class``; ``ground_truth_class``; ``alignment_class_k``, the alignment of
        grad(f_k - f_y) with delta-x towards k; ``distance_class_k`` (infinite for k = y); and
        ``closest_class_attack_epsilon_<eps>``.
    """
    classes = logits_BK.shape[1]
    rows_B = torch.arange(len(y_B), device=y_B.device)
    gap_BK = jacobian_BK - jacobian_BK[rows_B, y_B][:, None]
    distance_BK = class_distances(logits_BK, jacobian_BK, y_B)
    columns = {
        "closest_class": closest_class(logits_BK, jacobian_BK, y_B),
        "ground_truth_class": y_B,
    }
    for k in range(classes):
        columns[f"alignment_class_{k}"] = alignment(gap_BK[:, k], delta_x_BK[:, k])
    columns |= {f"distance_class_{k}": distance_BK[:, k] for k in range(classes)}
    columns |= {f"closest_class_attack_epsilon_{eps}": c_B for eps, c_B in attacked.items()}
    return pd.DataFrame({name: column.cpu().numpy() for name, column in columns.items()})


def write_linearity(table: pd.DataFrame, folder: Path) -> tuple[Path, Path]:
    """Write ``csv_table.csv``, its first column the unnamed row number, and a parquet file.

    Returns
    -------
    Path, Path
        The two files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    csv, parquet = folder / "csv_table.csv", folder / "linearity.parquet"
    table.to_csv(csv)
    table.to_parquet(parquet, index=False)
    return csv, parquet
