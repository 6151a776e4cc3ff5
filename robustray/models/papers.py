"""The papers that the catalogue's models come from."""

from robustray.models.registry import Paper

REVISITING = Paper(
    "Shihua Huang, Zhichao Lu, Kalyanmoy Deb, Vishnu Naresh Boddeti",
    "Revisiting Residual Networks for Adversarial Robustness: An Architectural Perspective",
    "CVPR 2023",
    "2212.11005",
)
WIDE_RESNETS = Paper(
    "Sergey Zagoruyko, Nikos Komodakis", "Wide Residual Networks", "BMVC 2016", "1605.07146"
)
INGREDIENTS = Paper(
    "Hanxun Huang, Yisen Wang, Sarah Erfani, Quanquan Gu, James Bailey, Xingjun Ma",
    "Exploring Architectural Ingredients of Adversarially Robust Deep Neural Networks",
    "NeurIPS 2021",
    "2110.03825",
)
ROBNET = Paper(
    "Minghao Guo, Yuzhe Yang, Rui Xu, Ziwei Liu, Dahua Lin",
    "When NAS Meets Robustness: In Search of Robust Architectures against Adversarial Attacks",
    "CVPR 2020",
    "1911.10695",
)
ADVRUSH = Paper(
    "Jisoo Mok, Byunggook Na, Hyeokjun Choe, Sungroh Yoon",
    "AdvRush: Searching for Adversarially Robust Neural Architectures",
    "ICCV 2021",
    "2108.01289",
)
RACL = Paper(
    "Minjing Dong, Yanxi Li, Yunhe Wang, Chang Xu",
    "Adversarially Robust Neural Architectures",
    "arXiv 2020",
    "2009.00902",
)

DIRECTIONS = Paper(
    authors="Ricardo Bigolin Lanfredi, Joyce D. Schroeder, Tolga Tasdizen",
    title="Quantifying the Preferential Direction of the Model Gradient in Adversarial Training "
    "With Projected Gradient Descent",
    venue="Pattern Recognition 139, 2023",
    arxiv="2009.04709",
)
