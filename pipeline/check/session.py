from pipeline.runtime.session import *  # noqa: F403
from pipeline.runtime.session import (
    make_session,
    session_options,
    session_config,
    check_providers,
    DISABLED_OPTIMIZERS,
)  # noqa: F401
