"""The types of settings, and how their texts are read.

The type also determines the setting's JSON Schema, and whether messages may contain its value.
"""

from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Annotated, Any, get_args

from pydantic import BeforeValidator, SecretStr
from pydantic_settings import NoDecode

from tablehouse.config import setting_values as values


@dataclass(frozen=True, slots=True)
class Unshown:
    """Marks a type whose values do not appear in messages, since they may contain secrets."""


Servers = Annotated[str, BeforeValidator(values.servers)]
Path = Annotated[FilePath, BeforeValidator(values.path)]
Group = Annotated[str, BeforeValidator(values.group, json_schema_input_type=values.Group)]
Topic = Annotated[str, BeforeValidator(values.topic, json_schema_input_type=values.Topic)]
Replicas = Annotated[int, BeforeValidator(values.replicas, json_schema_input_type=values.Replicas)]
Records = Annotated[int, BeforeValidator(values.records, json_schema_input_type=values.Records)]
Size = Annotated[int, BeforeValidator(values.memory, json_schema_input_type=values.Size)]
Host = Annotated[str, BeforeValidator(values.host)]
Port = Annotated[int, BeforeValidator(values.port)]
AdvertisedHost = Annotated[str, BeforeValidator(values.advertised_host)]
ListenerUrl = Annotated[str, BeforeValidator(values.url)]
TokenUrl = Annotated[str, BeforeValidator(values.token_url)]
Zone = Annotated[str, BeforeValidator(values.zone)]
Text = Annotated[str, BeforeValidator(values.text)]
UserName = Annotated[str, BeforeValidator(values.user)]

Secret = Annotated[SecretStr, BeforeValidator(values.secret)]
#: A secret that is sent in an HTTP header.
HeaderSecret = Annotated[SecretStr, BeforeValidator(values.header_secret)]

# Lists are texts separated by commas.
Secrets = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(values.secrets)]
Origins = Annotated[tuple[str, ...], NoDecode, BeforeValidator(values.origins)]
#: A URL may contain the registry's password by mistake; that is refused.
RegistryUrls = Annotated[tuple[str, ...], NoDecode, Unshown(), BeforeValidator(values.registry_urls)]


def is_unshown(annotation: Any, metadata: Any = ()) -> bool:
    """Return whether values of a type must not appear in messages: secrets, and types marked as Unshown.

    `metadata` is what pydantic has removed from the annotation.
    """
    if annotation is SecretStr or isinstance(annotation, Unshown):
        return True
    return any(is_unshown(part) for part in (*get_args(annotation), *metadata))
