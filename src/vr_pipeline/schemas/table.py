"""What all tables share."""

from typing import Any

import pandera.pandas as pa

from vr_pipeline.schemas.parts import TableParts


class Table(pa.DataFrameModel):
    """What all tables share: types are coerced, missing columns are errors, further columns pass."""

    class Config:
        coerce = True
        strict = False

    @classmethod
    def validate(cls, check_obj: Any, *arguments: Any, **options: Any) -> Any:
        """Return the checked table; one in parts is checked part by part, whenever they are asked for."""
        if isinstance(check_obj, TableParts):
            return check_obj.map(lambda part: cls.validate(part, *arguments, **options))
        return super().validate(check_obj, *arguments, **options)


def share(description: str) -> Any:
    """Describe a column of shares, 0 to 1, that may be missing."""
    return pa.Field(ge=0.0, le=1.0, nullable=True, description=description)
