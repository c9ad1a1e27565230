"""Model families: one file each. Nothing else in the package asks for a model by name."""

from typing import Final

from isinglass.errors import CheckpointError
from isinglass.models.families.bert import BERT
from isinglass.models.families.distilbert import DISTILBERT
from isinglass.models.families.electra import ELECTRA
from isinglass.models.families.family import Family
from isinglass.models.families.roberta import ROBERTA
from isinglass.models.families.xlm_roberta import XLM_ROBERTA
from isinglass.names import brief, did_you_mean

FAMILIES: Final = {family.model_type: family for family in (BERT, ROBERTA, DISTILBERT, ELECTRA, XLM_ROBERTA)}


def get_family(model_type: object, origin: str) -> Family:
    """Return the family of a `config.json`.

    Raises:
        CheckpointError: it is not served; the message lists those that are.
    """
    name = model_type if isinstance(model_type, str) else ""
    if name not in FAMILIES:
        raise CheckpointError(
            f"{origin}: model_type is {brief(model_type)}{did_you_mean(name, FAMILIES)}; "
            f"the families served are {', '.join(FAMILIES)}."
        )
    return FAMILIES[name]
