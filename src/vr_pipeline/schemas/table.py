"""The base of all schemas."""

from typing import Any

import pandera.pandas as pa

from vr_pipeline.schemas.parts import TableParts


class Table(pa.DataFrameModel):
    """The base of all schemas: types are coerced, missing columns are errors, further columns are allowed."""

    class Config:
        coerce = True
        strict = False

    @classmethod
    def validate(cls, check_obj: Any, *arguments: Any, **options: Any) -> Any:
        """Return the checked table; one in parts is checked part by part when it is iterated."""
        if isinstance(check_obj, TableParts):
            return check_obj.map(lambda part: cls.validate(part, *arguments, **options))
        return super().validate(check_obj, *arguments, **options)


def share(description: str) -> Any:
    """Describe a column of shares, 0 to 1, that may be missing."""
    return pa.Field(ge=0.0, le=1.0, nullable=True, description=description)
