"""scikit-learn's own conformance checks of the heads that need no parameter."""

from sklearn.utils.estimator_checks import parametrize_with_checks

from mtsk.heads import JointLogistic, JointRidge


def expected_failures(estimator):
    """Return the checks that cannot hold, each with its reason."""
    inexact = (
        "asks for equality to 1e-7, while products are made in float32 and the search "
        "stops early; test_weights_are_repetitions checks it to 1e-3"
    )
    if isinstance(estimator, JointRidge) and not estimator.calibrate:
        return {"check_sample_weight_equivalence_on_dense_data": inexact}
    return {"check_sample_weight_equivalence_on_dense_data": inexact}


@parametrize_with_checks(
    [JointLogistic(), JointRidge(), JointRidge(alpha=1e-3, calibrate=False)],
    expected_failed_checks=expected_failures,
)
def test_conforms(estimator, check):
    check(estimator)
