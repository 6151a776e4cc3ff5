"""Every link to weights in the READMEs of the four systems is a source of a record."""

import pytest

from robustray.zoo import load_records

BAIDU = {
    "preact_resnet-table-1-d4-w10": "1Yng1A0snNj8rGzML3WStzg?pwd=f3ct",
    "preact_resnet-table-1-d5-w12": "1FFxvdVxgHpXnBvidGrpDLA?pwd=p9ue",
    "preact_resnet-table-1-d7-w14": "1x9-zVQzu0QeXKr19Ce4YOg?pwd=suau",
    "preact_resnet-table-1-d11-w16": "1pr7QcWO1uj9GsrvS5ZvIHg?pwd=x9wp",
    "width-512": "1oPAzy_lJWdeMSjE7WHxVFw?pwd=wrd2",
    "preact_resnet-table-2-5g-depth": "1JUie3bQGVgXlzhlJmPQmMA?pwd=n6vf",
    "preact_resnet-table-2-5g-width": "1RArVv7_uhYPMqB6sZfoyQQ?pwd=we68",
    "preact_resnet-table-2-10g-depth": "1RfIxgVdM0MrhFDMXkCAHpg?pwd=emha",
    "preact_resnet-table-2-10g-width": "1z1TGW4dre_Ydu5KU7ZqV5A?pwd=7q6s",
    "preact_resnet-table-2-20g-depth": "1mI4NZsqWpbYhZ2DO09MGcA?pwd=udz8",
    "preact_resnet-table-2-20g-width": "166JdawZX6ZpfpDaVz8a7Fw?pwd=b8yn",
    "preact_resnet-table-2-40g-depth": "165NMZ5NP54gTBHcQD_IRaQ?pwd=knmk",
    "preact_resnet-table-2-40g-width": "18nNGDffrmVoV9waSeCh8uA?pwd=pfph",
    "rrn_a1-baidu-500k": "1OH2Tqg0Piz3OFCrhV0dVdw?pwd=m53k",
}
BIT = "http://172.233.227.28/base_models/{0}/{0}_std_rn152.pt"
EDM = "https://huggingface.co/wzekai99/DM-Improves-AT/resolve/main/checkpoint/{}_linf_wrn70-16.pt"
DEEPMIND = "https://storage.googleapis.com/dm-adversarial-robustness/cifar100_linf_wrn70-16_with.pt"
# By record: each link of a README, Google Drive's by the file's id.
LINKS: dict[str, tuple[str, ...]] = {
    **{name: (f"page:https://pan.baidu.com/s/{rest}",) for name, rest in BAIDU.items()},
    "robust_model_zoo_1-tf1": ("drive:16PLzHqErmNdPHexlPfZ8ccxeIaqWOMTt",),
    "robust_model_zoo_2-tf1": ("drive:1s76yDCBK86KN_cxjJM87i4qn897arAY_",),
    "smoothing-cifar100-edm": (
        BIT.format("cifar100"), EDM.format("cifar100"), "drive:15FHXj7lmAgKT4Miu6S1CONufFtAwlWyT",
    ),
    "smoothing-cifar100-trades": (
        BIT.format("cifar100"), DEEPMIND, "drive:1_Lh0XLlo3mX0B9o2jGebG8L6h_NpwFea",
    ),
    "smoothing-cifar10-edm": (
        BIT.format("cifar10"), EDM.format("cifar10"), "drive:1SE19EHy6WFDqpNs2_exQ9iotV2sF0CZ9",
    ),
    "gradient-direction": ("page:https://github.com/ricbl/gradient-direction-of-robust-models",),
}  # fmt: skip
# Table 2: depths, widths, PGD-20, CW-40. The row of 40 GMACs by depth is printed with 11 for 6.
TABLE_2 = {
    "5g-depth": ([5, 5, 2], [10, 10, 10], 56.05, 53.14),
    "5g-width": ([4, 4, 4], [11, 13, 6], 56.89, 53.87),
    "10g-depth": ([6, 6, 3], [12, 12, 12], 56.42, 53.91),
    "10g-width": ([5, 5, 5], [13, 16, 7], 57.06, 54.29),
    "20g-depth": ([9, 8, 4], [14, 14, 14], 57.11, 54.48),
    "20g-width": ([7, 7, 7], [16, 18, 8], 58.02, 55.34),
    "40g-depth": ([14, 13, 6], [16, 16, 16], 57.90, 55.79),
    "40g-width": ([11, 11, 11], [18, 21, 9], 58.48, 56.15),
}


@pytest.mark.parametrize("name", LINKS)
def test_every_published_link_is_a_source(name):
    sources = {source for file in load_records()[name].files for source in file.sources}
    assert set(LINKS[name]) <= sources


def test_all_links_are_there_and_each_once():
    links = [link for links in LINKS.values() for link in links]
    assert len(BAIDU) == 14
    assert len(set(links)) == 14 + 2 + 8 + 1  # BiT for CIFAR-100 is of two mixtures


@pytest.mark.parametrize("row", TABLE_2)
def test_rows_of_table_2(row):
    record = load_records()[f"preact_resnet-table-2-{row}"]
    depths, widths, pgd, cw = TABLE_2[row]
    assert record.model == "preact_resnet"
    assert record.options == {"depths": depths, "widths": widths, "block": "basic"}
    assert record.published == {"pgd-20": pgd, "cw-40": cw}
