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
BIT = Paper(
    "Alexander Kolesnikov, Lucas Beyer, Xiaohua Zhai, Joan Puigcerver, Jessica Yung, "
    "Sylvain Gelly, Neil Houlsby",
    "Big Transfer (BiT): General Visual Representation Learning",
    "ECCV 2020",
    "1912.11370",
)
UNCOVERING = Paper(
    "Sven Gowal, Chongli Qin, Jonathan Uesato, Timothy Mann, Pushmeet Kohli",
    "Uncovering the Limits of Adversarial Training against Norm-Bounded Adversarial Examples",
    "arXiv 2020",
    "2010.03593",
)
TRADES = Paper(
    "Hongyang Zhang, Yaodong Yu, Jiantao Jiao, Eric P. Xing, Laurent El Ghaoui, Michael I. Jordan",
    "Theoretically Principled Trade-off between Robustness and Accuracy",
    "ICML 2019",
    "1901.08573",
)
RESNETS = Paper(
    "Kaiming He, Xiangyu Zhang, Shaoqing Ren, Jian Sun",
    "Deep Residual Learning for Image Recognition",
    "CVPR 2016",
    "1512.03385",
)
DIRECTIONS = Paper(
    authors="Ricardo Bigolin Lanfredi, Joyce D. Schroeder, Tolga Tasdizen",
    title="Quantifying the Preferential Direction of the Model Gradient in Adversarial Training "
    "With Projected Gradient Descent",
    venue="Pattern Recognition 139, 2023",
    arxiv="2009.04709",
)

ADAPTIVE_SMOOTHING = Paper(
    "Bai, Anderson, Kim, Sojoudi",
    "Improving the accuracy-robustness trade-off of classifiers via adaptive smoothing",
    "SIMODS 2024",
    "2301.12554",
)
SMOOTHING = Paper(
    "Cohen, Rosenfeld, Kolter",
    "Certified adversarial robustness via randomized smoothing",
    "ICML 2019",
    "1902.02918",
)
